"""Pooling.

Inputs: the predictions, cells, fields and annotations of a collection's shards, and the prototypes of the model.
Outputs: one table of cells, one of fields, one of proteins if the antibody is known, and an AnnData file; one by columns
of the sheet if predict.pool_by names some.
Steps: join, check that every cell appears once, pool over field, antibody and these columns.
"""


rule aggregate:
    """Join a collection's predictions and pool them into calls per field and protein."""
    input:
        predictions=lambda wildcards: of_shards("predictions", wildcards.collection),
        cells=lambda wildcards: of_shards("cells", wildcards.collection),
        fields=lambda wildcards: of_shards("fields", wildcards.collection),
        annotations=lambda wildcards: of_shards("annotations", wildcards.collection),
        columns=other_columns,
        model=model_files,
        reading=reading_files,
        fusion=fusion_files,
    output:
        cells="results/predictions/{collection}/cells.parquet",
        fields="results/predictions/{collection}/fields.parquet",
        proteins="results/predictions/{collection}/proteins.parquet",
        h5ad="results/predictions/{collection}/cells.h5ad",
    log:
        "logs/aggregate/{collection}.log",
    benchmark:
        "benchmarks/aggregate/{collection}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        model=MODEL,
        model_version=model_version,
        shards=lambda wildcards: SHARDS[wildcards.collection],
        version=code_of("pooling", "mixtures.fractions"),
    script:
        "../scripts/aggregate.py"


rule pool:
    """Pool a collection's calls by columns of its sheet (predict.pool_by)."""
    input:
        cells="results/predictions/{collection}/cells.parquet",
        fields=fields_to_pool,
        model=model_files,
        reading=reading_files,
        fusion=fusion_files,
    output:
        "results/predictions/{collection}/pooled.parquet",
    log:
        "logs/pool/{collection}.log",
    benchmark:
        "benchmarks/pool/{collection}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        model=MODEL,
        model_version=model_version,
        columns=config["predict"]["pool_by"],
        version=code_of("column_pooling", "mixtures.fractions"),
    script:
        "../scripts/pool.py"
