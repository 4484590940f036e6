"""The training data.

Inputs: the examples and the training collection's tiles.
Outputs: shuffled TFRecord shards per colour, for training and validation.
Steps: draw the examples' tiles in their order and write them colour by colour.
"""


rule records:
    """Write the tiles of the examples as shuffled TFRecord shards."""
    input:
        examples="results/dataset/examples.parquet",
        tiles=tiles_of(TRAINING),
    output:
        directory(expand("results/dataset/{part}", part=["train", "validation"])),
    log:
        "logs/records.log",
    benchmark:
        "benchmarks/records.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        version=code_of("records"),
    script:
        "../scripts/records.py"
