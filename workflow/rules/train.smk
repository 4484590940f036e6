"""Training.

Inputs: the training data.
Outputs: a self-contained model folder, the curves of its training, and its receptive field.
Steps: build the network, train it, fit the thresholds on the validation part; then, in separate rules, learn to read
mixtures, write the card, measure and draw.
"""


rule train:
    """Train the network."""
    input:
        examples="results/dataset/examples.parquet",
        parts=expand("results/dataset/{part}", part=["train", "validation"]),
        start=(expand("results/pretraining/model/{name}", name=MODEL_FILES) if PRETRAINING else []),
    output:
        expand("results/model/{name}", name=MODEL_FILES),
        history=report(
            "results/model/history.csv",
            caption="../report/history.rst",
            category="Model",
            subcategory="Tables",
            labels={"table": "all values, epoch by epoch", "format": "csv"},
        ),
        judged="results/model/judged.npy",
        logs=directory("results/model/logs"),
    log:
        "logs/train.log",
    benchmark:
        "benchmarks/train.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 8
    resources:
        **GPUS,
        mem_mb=grows(16000),
        runtime=grows(1440),
    params:
        train=FINAL_SETTINGS,
        start=lambda wildcards: None if PRETRAINING else content_of(*WEIGHTS),
        seed=config["seed"],
        version=code_of("training.train"),
    script:
        "../scripts/train.py"


rule learn_mixtures:
    """Learn to read mixtures of locations from blends of training cells (train.blends)."""
    input:
        model=expand("results/model/{name}", name=MODEL_FILES),
        examples="results/dataset/examples.parquet",
        part="results/dataset/train",
    output:
        expand("results/model/{name}", name=READING_FILES),
    log:
        "logs/learn_mixtures.log",
    benchmark:
        "benchmarks/learn_mixtures.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 8
    resources:
        **GPU,
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        blends=config["train"]["blends"],
        batch_size=config["train"]["batch_size"],
        precision=config["train"]["precision"],
        seed=config["seed"],
        version=code_of("mixtures.learning"),
    script:
        "../scripts/learn_mixtures.py"


rule note_seen:
    """Note the fields and cells that train the network, as digests: scores leave out what it has seen."""
    input:
        unpack(tables_that_train),
        examples=[
            *(["results/pretraining/examples.parquet"] if PRETRAINING else []),
            "results/dataset/examples.parquet",
        ],
    output:
        "results/dataset/seen.npz",
    log:
        "logs/note_seen.log",
    benchmark:
        "benchmarks/note_seen.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        collections=lambda wildcards: [{"name": name, "shards": SHARDS[name]} for name in training_collections(config)],
        group_by=config["curation"]["group_by"],
        start=START,
        start_seen=lambda wildcards: content_of(f"{START}/seen.npz") if START else None,
        version=code_of("seen.finding"),
    script:
        "../scripts/note_seen.py"


rule add_seen:
    """Add to the model folder what trained the network."""
    input:
        model="results/model/checksums.json",
        seen="results/dataset/seen.npz",
    output:
        expand("results/model/{name}", name=SEEN_FILES),
    log:
        "logs/add_seen.log",
    benchmark:
        "benchmarks/add_seen.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        version=code_of("seen.record"),
    script:
        "../scripts/add_seen.py"


rule learn_baselines:
    """Learn the baselines of the network from the cells that train it."""
    input:
        model="results/model/checksums.json",
        examples="results/dataset/examples.parquet",
        measures=lambda wildcards: of_shards("baselines", TRAINING),
    output:
        expand("results/model/{name}", name=BASELINE_FILES),
    log:
        "logs/learn_baselines.log",
    benchmark:
        "benchmarks/learn_baselines.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        seed=config["seed"],
        version=code_of("baselines.learning"),
    script:
        "../scripts/learn_baselines.py"


rule learn_fusion:
    """Fit thresholds to the fused probabilities of the network and its regression (train.fusion)."""
    input:
        model=expand("results/model/{name}", name=MODEL_FILES),
        judged="results/model/judged.npy",
        baselines=expand("results/model/{name}", name=BASELINE_FILES),
        examples="results/dataset/examples.parquet",
        measures=lambda wildcards: of_shards("baselines", TRAINING),
    output:
        expand("results/model/{name}", name=FUSION_FILES),
    log:
        "logs/learn_fusion.log",
    benchmark:
        "benchmarks/learn_fusion.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        weight=config["train"]["fusion"],
        version=code_of("fusion"),
    script:
        "../scripts/learn_fusion.py"


rule model_card:
    """Write the model card."""
    input:
        baselines=expand("results/model/{name}", name=BASELINE_FILES),
        fusion=fusion_files,
        model=expand("results/model/{name}", name=["config.json", "thresholds.json", "history.csv"]),
        examples="results/dataset/examples.parquet",
    output:
        "results/model/card.md",
    log:
        "logs/model_card.log",
    benchmark:
        "benchmarks/model_card.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(10),
    params:
        cross_validation=cross_validation_of_card,
        images=lambda wildcards: describe_training_images(config),
        version=code_of("model_card"),
    script:
        "../scripts/model_card.py"


rule receptive_field:
    """Measure which part of a tile affects one position of the network's last map."""
    input:
        model=expand("results/model/{name}", name=MODEL_FILES),
        examples="results/dataset/examples.parquet",
        part="results/dataset/train",
    output:
        "results/figures/receptive_field.npz",
    log:
        "logs/receptive_field.log",
    benchmark:
        "benchmarks/receptive_field.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(30),
    params:
        version=code_of("network.receptive_field"),
    script:
        "../scripts/receptive_field.py"


rule training_curves:
    """Draw the learning rate, loss, accuracy and AUC over the epochs, and the receptive field."""
    input:
        history="results/model/history.csv",
        receptive_field="results/figures/receptive_field.npz",
    output:
        [
            report(
                f"results/figures/{name}.{suffix}",
                caption="../report/training.rst",
                category="Model",
                subcategory="Figures",
                labels={
                    "figure": TRAINING_FIGURES[name],
                    "format": suffix,
                },
            )
            for name in TRAINING_FIGURES
            for suffix in ("svg", "png")
        ],
    log:
        "logs/training_curves.log",
    benchmark:
        "benchmarks/training_curves.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        version=code_of("figures.training"),
    script:
        "../scripts/training_curves.py"


if PRETRAINING:

    include: "pretrain.smk"


if CONTROLS:

    include: "controls.smk"


include: "cross_validate.smk"


if HELD_OUT:

    include: "held_out.smk"
