"""Segmentation.

Inputs: a shard's manifest (and, through it, its channel files).
Outputs: label images of cells and nuclei, and a table with the status of each field.
The script reads settings that only affect where and how fast the work is done from the configuration. They are not
parameters, so a change of them reruns nothing.
Steps: start a Dask cluster inside the job, with one task per field; record a field that fails and continue.
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
    conda:
        "../../envs/hpacellseg.yaml"
        if config["segmentation"]["backend"] == "hpacellseg"
        else "../../envs/segmentation.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        segmentation={key: value for key, value in config["segmentation"].items() if key != "device"},
        version=code_of("segmentation.shards", *(["mask_tables"] if GIVEN_MASKS else [])),
    script:
        "../scripts/segment.py"
