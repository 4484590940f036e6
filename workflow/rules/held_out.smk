"""The training without the held-out classes (interpretation.held_out), whose network knows nothing about them.

Inputs: the examples and tiles of the training or, if there is a first training (train.pretraining), of the first
training, which is then the only one.
Outputs: results/held_out, with its examples, records and model folder.
Steps: leave out the cells of the classes, then the steps of records and train.
"""


rule held_out:
    """Leave out every example of the held-out classes."""
    input:
        to_hold_out,
    output:
        "results/held_out/examples.parquet",
    log:
        "logs/held_out.log",
    benchmark:
        "benchmarks/held_out.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        held_out=HELD_OUT,
        seed=config["seed"],
        version=code_of("examples"),
    script:
        "../scripts/held_out.py"


use rule records as records_held_out with:
    input:
        examples="results/held_out/examples.parquet",
        tiles=tiles_of(PRETRAINING["collection"] if PRETRAINING else TRAINING),
    output:
        directory(expand("results/held_out/{part}", part=["train", "validation"])),
    log:
        "logs/records_held_out.log",
    benchmark:
        "benchmarks/records_held_out.tsv"


use rule train as train_held_out with:
    input:
        examples="results/held_out/examples.parquet",
        parts=expand("results/held_out/{part}", part=["train", "validation"]),
    output:
        expand("results/held_out/model/{name}", name=MODEL_FILES),
        history="results/held_out/model/history.csv",
        judged="results/held_out/model/judged.npy",
        logs=directory("results/held_out/model/logs"),
    log:
        "logs/train_held_out.log",
    benchmark:
        "benchmarks/train_held_out.tsv"
    params:
        train=shortened(FIRST_SETTINGS, config["interpretation"]["epochs"]),
        start=lambda wildcards: content_of(*WEIGHTS),
        seed=config["seed"],
        version=code_of("training.train"),
