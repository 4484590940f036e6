"""The competition's form.

Inputs: a collection's predictions and the masks of its cells.
Outputs: submission.csv.
Steps: one row a field, one triple of class, confidence and mask per cell and class.
"""


rule submit:
    """Write a collection's predictions in the form of the 2021 competition."""
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
