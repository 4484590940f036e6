"""Exports: what a run made, in formats that other programs read (docs/exports.md), each on request.

Inputs: a shard's segmentation, its tables of cells and fields, its predictions.
Outputs: results/export/<format>, a folder for each shard of the predicted collections.
Steps: join the cells with their calls, and write them by the library of the format.
"""

# The files of a model folder that say what it is, and the tables of a predicted collection that are in a crate.
DESCRIBING_MODEL = ["config.json", "thresholds.json", "checksums.json", "card.md", "history.csv"]
if config["model"]["path"] or config["train"]["fusion"] > 0:
    DESCRIBING_MODEL.append("fusion.json")
CRATED_TABLES = ["cells.parquet", "fields.parquet", "proteins.parquet", *POOLED, "submission.csv"]


rule geojson_shard:
    """Write the cells of one shard with their calls as GeoJSON, one file per field."""
    input:
        segmentation="results/segmentation/{collection}/{shard}",
        cells="results/cells/{collection}/{shard}.parquet",
        fields="results/cells/{collection}/{shard}.fields.parquet",
        predictions="results/predictions/{collection}/shards/{shard}.parquet",
    output:
        directory("results/export/geojson/{collection}/{shard}"),
    log:
        "logs/geojson_shard/{collection}/{shard}.log",
    benchmark:
        "benchmarks/geojson_shard/{collection}/{shard}.tsv"
    conda:
        "../../envs/geojson.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        version=code_of("exporting.calls", "exporting.geojson"),
    script:
        "../scripts/export_geojson.py"


rule ome_zarr_shard:
    """Write the fields of one shard with their masks as OME-Zarr, one folder per field."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
        images=made_images,
        segmentation="results/segmentation/{collection}/{shard}",
        fields="results/cells/{collection}/{shard}.fields.parquet",
    output:
        directory("results/export/ome_zarr/{collection}/{shard}"),
    log:
        "logs/ome_zarr_shard/{collection}/{shard}.log",
    benchmark:
        "benchmarks/ome_zarr_shard/{collection}/{shard}.tsv"
    conda:
        "../../envs/ome_zarr.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        version=code_of("exporting.ome_zarr"),
    script:
        "../scripts/export_ome_zarr.py"


rule export_onnx:
    """Write the model of the run with its preprocessing as ONNX, for onnxruntime."""
    input:
        model_for_export,
    output:
        "results/export/onnx/model.onnx",
    log:
        "logs/export_onnx.log",
    benchmark:
        "benchmarks/export_onnx.tsv"
    conda:
        "../../envs/onnx.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(30),
    params:
        model=MODEL,
        model_version=model_version,
        views=config["predict"]["views"],
        version=code_of("exporting.onnx"),
    script:
        "../scripts/export_onnx.py"


rule spatialdata_shard:
    """Write the fields of one shard with their masks and called cells as one SpatialData store."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
        images=made_images,
        segmentation="results/segmentation/{collection}/{shard}",
        cells="results/cells/{collection}/{shard}.parquet",
        fields="results/cells/{collection}/{shard}.fields.parquet",
        predictions="results/predictions/{collection}/shards/{shard}.parquet",
    output:
        directory("results/export/spatialdata/{collection}/{shard}"),
    log:
        "logs/spatialdata_shard/{collection}/{shard}.log",
    benchmark:
        "benchmarks/spatialdata_shard/{collection}/{shard}.tsv"
    conda:
        "../../envs/spatialdata.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        version=code_of("exporting.calls", "exporting.spatialdata"),
    script:
        "../scripts/export_spatialdata.py"


rule export_crate:
    """Write the tables, scores and settings of the run as RO-Crate."""
    input:
        checked_run,
        config="results/run/config.yaml",
        run=["results/run/software.csv", "results/run/jobs.csv"],
        tables=[
            *expand("results/sheet/{collection}.parquet", collection=PREDICTED),
            *expand("results/predictions/{collection}/{name}", collection=PREDICTED, name=CRATED_TABLES),
            "results/sheet/rejected.csv",
            WARNED,
            SUMMARY,
        ],
        scores=rules.evaluate.output,
        trained=trained_here(*DESCRIBING_MODEL),
    output:
        "results/export/crate/run.crate.zip",
    log:
        "logs/export_crate.log",
    benchmark:
        "benchmarks/export_crate.tsv"
    localrule: True
    conda:
        "../../envs/crate.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(30),
    params:
        collections=PREDICTED,
        workflow=str(HERE),
        code=workflow_code,
        model=lambda wildcards: MODEL,
        model_version=model_version,
        of_model=DESCRIBING_MODEL if config["model"]["path"] else [],
        version=code_of("exporting.crate"),
    script:
        "../scripts/export_crate.py"
