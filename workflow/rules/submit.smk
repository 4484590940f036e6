"""The format of the competition.

Inputs: a collection's predictions and the masks of its cells.
Outputs: submission.csv.
Steps: write one row per field, with one triple of class, confidence and mask per cell and class.
"""


rule submit:
    """Write a collection's predictions in the format of the 2021 competition."""
    input:
        predictions=lambda wildcards: of_shards("predictions", wildcards.collection),
        cells=lambda wildcards: of_shards("cells", wildcards.collection),
        fields=lambda wildcards: of_shards("fields", wildcards.collection),
    output:
        "results/predictions/{collection}/submission.csv",
    log:
        "logs/submit/{collection}.log",
    benchmark:
        "benchmarks/submit/{collection}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        shards=lambda wildcards: SHARDS[wildcards.collection],
        version=code_of("pooling"),
    script:
        "../scripts/submit.py"
