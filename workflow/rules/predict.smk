"""Prediction.

Inputs: a shard's tiles and cells, and a model folder.
Outputs: probabilities, label set and embedding of every cell of the shard.
Steps: check the model, average the dihedral views, apply the thresholds.
"""


rule predict:
    """Predict the locations of the cells of one shard."""
    input:
        model=model_files,
        reading=reading_files,
        fusion=fusion_files,
        measures=lambda wildcards: measures_to_fuse(wildcards.collection, wildcards.shard),
        cells=["results/cells/{collection}/{shard}.parquet"],
        tiles=[f"results/tiles/{{collection}}/{{shard}}/{colour}.tfrecord" for colour in COLOURS],
    output:
        "results/predictions/{collection}/shards/{shard}.parquet",
    log:
        "logs/predict/{collection}/{shard}.log",
    benchmark:
        "benchmarks/predict/{collection}/{shard}.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 8
    resources:
        **GPU,
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        model=MODEL,
        model_version=model_version,
        precision=config["train"]["precision"],
        views=config["predict"]["views"],
        field_weight=config["predict"]["field_weight"],
        version=code_of("fold_table", "prediction"),
    script:
        "../scripts/predict.py"
