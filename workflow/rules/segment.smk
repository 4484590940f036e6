"""Segmentation.

Inputs: a shard's manifest (and, through it, its channel files).
Outputs: label images of cells and nuclei, and a table of what became of each field.
What only decides where and how fast the work is done is read from the configuration by the script, not passed as a
parameter: a change of it reruns nothing.
Steps: a Dask cluster inside the job, one field a task; a field that fails is recorded and the rest goes on.
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
        version=code_of("segmentation.shards"),
    script:
        "../scripts/segment.py"
