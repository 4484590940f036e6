"""Segmentation.

Inputs: a shard's manifest (and, through it, its channel files).
Outputs: label images of cells and nuclei, and a table with the status of each field.
The script reads settings that only affect where and how fast the work is done from the configuration. They are not
parameters, so a change of them reruns nothing.
Steps: start a Dask cluster inside the job, with one task per field; record a field that fails and continue. Ready-made
crops are not segmented: each gets a mask that covers it.
"""


rule segment:
    """Find the nuclei and cells of the fields of one shard."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
        images=to_segment,
    output:
        directory("results/segmentation/{collection}/{shard}"),
    log:
        "logs/segment/{collection}/{shard}.log",
    benchmark:
        "benchmarks/segment/{collection}/{shard}.tsv"
    wildcard_constraints:
        collection=one_of(name for name in COLLECTIONS if name not in CROPS),
    conda:
        {"hpacellseg": "../../envs/hpacellseg.yaml", "torchscript": "../../envs/torchscript.yaml"}.get(
            SEGMENTATION_ENVIRONMENT, "../../envs/segmentation.yaml"
        )
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        segmentation={key: value for key, value in config["segmentation"].items() if key != "device"},
        version=code_of("segmentation.shards", *(["mask_tables"] if GIVEN_MASKS else [])),
    script:
        "../scripts/segment.py"


rule mark_crops:
    """Mark the cell of every ready-made crop of one shard, which is not segmented."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
    output:
        directory("results/segmentation/{collection}/{shard}"),
    log:
        "logs/mark_crops/{collection}/{shard}.log",
    benchmark:
        "benchmarks/mark_crops/{collection}/{shard}.tsv"
    wildcard_constraints:
        collection=one_of(CROPS),
    conda:
        "../../envs/segmentation.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        version=code_of("segmentation.crops"),
    script:
        "../scripts/mark_crops.py"
