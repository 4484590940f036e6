"""Control trainings (evaluation.controls), whose scores show how reliable the evaluation is.

Inputs: the examples and tiles of the training collection.
Outputs: results/controls/{control}, with its examples, records and model folder.
Steps: change split or labels on purpose, then the steps of records and train.
"""


wildcard_constraints:
    control="|".join(CONTROLS),


rule control:
    """Change the split or the labels of the examples into those of a control."""
    input:
        "results/dataset/examples.parquet",
    output:
        "results/controls/{control}/examples.parquet",
    log:
        "logs/control/{control}.log",
    benchmark:
        "benchmarks/control/{control}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        fraction=config["curation"]["validation_fraction"],
        seed=config["seed"],
        version=code_of("controls", "examples"),
    script:
        "../scripts/control.py"


use rule records as records_control with:
    input:
        examples="results/controls/{control}/examples.parquet",
        tiles=tiles_of(TRAINING),
    output:
        directory(
            expand(
                "results/controls/{{control}}/{part}",
                part=["train", "validation"],
            )
        ),
    log:
        "logs/records_control/{control}.log",
    benchmark:
        "benchmarks/records_control/{control}.tsv"


use rule train as train_control with:
    input:
        examples="results/controls/{control}/examples.parquet",
        parts=expand("results/controls/{{control}}/{part}", part=["train", "validation"]),
        start=(expand("results/pretraining/model/{name}", name=MODEL_FILES) if PRETRAINING else []),
    output:
        expand("results/controls/{{control}}/model/{name}", name=MODEL_FILES),
        history="results/controls/{control}/model/history.csv",
        judged="results/controls/{control}/model/judged.npy",
        logs=directory("results/controls/{control}/model/logs"),
    log:
        "logs/train_control/{control}.log",
    benchmark:
        "benchmarks/train_control/{control}.tsv"
    params:
        train=FINAL_SETTINGS,
        start=lambda wildcards: None if PRETRAINING else content_of(*WEIGHTS),
        seed=config["seed"],
        version=code_of("training.train"),
