"""A first training (train.pretraining), for example on simulated fields, from which the training starts.

Inputs: the cells and tiles of its collection.
Outputs: results/pretraining, with its examples, records and model folder.
Steps: those of curate, records and train.
"""

FIRST = PRETRAINING["collection"]


use rule curate as curate_pretraining with:
    input:
        unpack(to_curate(FIRST)),
    output:
        examples="results/pretraining/examples.parquet",
        summary="results/pretraining/summary.json",
        rejected="results/pretraining/rejected_cells.parquet",
    log:
        "logs/curate_pretraining.log",
    benchmark:
        "benchmarks/curate_pretraining.tsv"
    params:
        **curation_params(FIRST),
        version=code_of(
            "columns", "curation", "fold_table", "joining", *(["matching"] if labelled_by_truth(FIRST) else [])
        ),


use rule records as records_pretraining with:
    input:
        examples="results/pretraining/examples.parquet",
        tiles=tiles_of(FIRST),
    output:
        directory(expand("results/pretraining/{part}", part=["train", "validation"])),
    log:
        "logs/records_pretraining.log",
    benchmark:
        "benchmarks/records_pretraining.tsv"


use rule train as pretrain with:
    input:
        examples="results/pretraining/examples.parquet",
        parts=expand("results/pretraining/{part}", part=["train", "validation"]),
    output:
        expand("results/pretraining/model/{name}", name=MODEL_FILES),
        history="results/pretraining/model/history.csv",
        judged="results/pretraining/model/judged.npy",
        logs=directory("results/pretraining/model/logs"),
    log:
        "logs/pretrain.log",
    benchmark:
        "benchmarks/pretrain.tsv"
    params:
        train=FIRST_SETTINGS,
        start=lambda wildcards: content_of(*WEIGHTS),
        seed=config["seed"],
        version=code_of("training.train"),
