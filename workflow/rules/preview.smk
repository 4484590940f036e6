"""The first look at the cells.

Inputs: the images, masks and tables of the first shard of a predicted collection.
Outputs: a page of some fields with the outlines of their cells.
Steps: choose fields, draw them.
"""


rule preview:
    """Draw some fields of a collection with the outlines of their cells, long before there are calls."""
    input:
        manifest=first_shard("manifest"),
        images=lambda wildcards: made(wildcards.collection, SHARDS[wildcards.collection][0]),
        segmentation=first_shard("segmentation"),
        cells=first_shard("cells"),
        fields=first_shard("fields"),
    output:
        "results/preview/{collection}.html",
    log:
        "logs/preview/{collection}.log",
    benchmark:
        "benchmarks/preview/{collection}.tsv"
    priority: 10
    conda:
        "../../envs/tensorflow.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        version=code_of("browser.preview"),
    script:
        "../scripts/preview.py"
