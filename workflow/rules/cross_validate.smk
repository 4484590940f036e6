"""Cross-validation (`snakemake cross_validate`, evaluation.folds): every cell of the training collection is predicted by a network that has not seen its group.

Inputs: the cells, fields and tiles of the training collection; the first training, if there is one, which runs once.
Outputs: results/cross_validation, with the examples, records and model folder of each fold, and the predictions,
scores, figures and cell browser of the collection, in the form of those of a predicted collection.
Steps: divide the groups of fields into folds; for each fold, the steps of curate, records, train and predict without
its fields; join the predictions; leave out what the network of a fold has seen; score; draw.
"""

# The network of a fold, whose training is that of results/model without the fields of the fold.
OF_FOLD = f"{CROSS_VALIDATION}/{{fold}}"
PREDICTED_IN_FOLDS = {"name": TRAINING, "shards": SHARDS.get(TRAINING, []), "predicted_in": CROSS_VALIDATION}
CROSS_VALIDATED = f"{CROSS_VALIDATION}/predictions/{TRAINING}"
# The training collection, if its true cells are known, as TRUE_CELLS of the predicted collections.
TRUE_IN_FOLDS = [name for name in COLLECTIONS if name == TRAINING and truth_files(name)]


wildcard_constraints:
    fold=r"\d+",


rule divide_folds:
    """Divide the fields of the training collection into folds, group by group."""
    input:
        unpack(to_divide),
    output:
        folds=f"{CROSS_VALIDATION}/folds.parquet",
        columns=f"{CROSS_VALIDATION}/columns.csv",
    log:
        "logs/divide_folds.log",
    benchmark:
        "benchmarks/divide_folds.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        folds=config["evaluation"]["folds"],
        group_by=config["curation"]["group_by"],
        true_cells=lambda wildcards: files_of(TRAINING) if labelled_by_truth(TRAINING) else None,
        true_content=lambda wildcards: true_content(TRAINING) if labelled_by_truth(TRAINING) else None,
        seed=config["seed"],
        version=code_of(
            "columns",
            "cross_validation",
            "fold_table",
            "folds",
            "joining",
            *(["matching"] if labelled_by_truth(TRAINING) else []),
        ),
    script:
        "../scripts/divide_folds.py"


use rule curate as curate_fold with:
    input:
        unpack(to_curate(TRAINING)),
        folds=rules.divide_folds.output.folds,
    output:
        examples=f"{OF_FOLD}/examples.parquet",
        summary=f"{OF_FOLD}/summary.json",
        rejected=f"{OF_FOLD}/rejected_cells.parquet",
    log:
        "logs/curate_fold/{fold}.log",
    benchmark:
        "benchmarks/curate_fold/{fold}.tsv"


use rule records as records_fold with:
    input:
        examples=f"{OF_FOLD}/examples.parquet",
        tiles=tiles_of(TRAINING),
    output:
        directory([f"{OF_FOLD}/train", f"{OF_FOLD}/validation"]),
    log:
        "logs/records_fold/{fold}.log",
    benchmark:
        "benchmarks/records_fold/{fold}.tsv"


use rule train as train_fold with:
    input:
        examples=f"{OF_FOLD}/examples.parquet",
        parts=[f"{OF_FOLD}/train", f"{OF_FOLD}/validation"],
        start=(expand("results/pretraining/model/{name}", name=MODEL_FILES) if PRETRAINING else []),
    output:
        [f"{OF_FOLD}/model/{name}" for name in MODEL_FILES],
        history=f"{OF_FOLD}/model/history.csv",
        judged=f"{OF_FOLD}/model/judged.npy",
        logs=directory(f"{OF_FOLD}/model/logs"),
    log:
        "logs/train_fold/{fold}.log",
    benchmark:
        "benchmarks/train_fold/{fold}.tsv"


use rule learn_baselines as learn_baselines_fold with:
    input:
        model=f"{OF_FOLD}/model/checksums.json",
        examples=f"{OF_FOLD}/examples.parquet",
        measures=lambda wildcards: of_shards("baselines", TRAINING),
    output:
        [f"{OF_FOLD}/model/{name}" for name in BASELINE_FILES],
    log:
        "logs/learn_baselines_fold/{fold}.log",
    benchmark:
        "benchmarks/learn_baselines_fold/{fold}.tsv"


use rule learn_fusion as learn_fusion_fold with:
    input:
        model=[f"{OF_FOLD}/model/{name}" for name in MODEL_FILES],
        judged=f"{OF_FOLD}/model/judged.npy",
        baselines=[f"{OF_FOLD}/model/{name}" for name in BASELINE_FILES],
        examples=f"{OF_FOLD}/examples.parquet",
        measures=lambda wildcards: of_shards("baselines", TRAINING),
    output:
        [f"{OF_FOLD}/model/{name}" for name in FUSION_FILES],
    log:
        "logs/learn_fusion_fold/{fold}.log",
    benchmark:
        "benchmarks/learn_fusion_fold/{fold}.tsv"


use rule predict as predict_fold with:
    input:
        model=[f"{OF_FOLD}/model/{name}" for name in MODEL_FILES],
        reading=[],
        fusion=[f"{OF_FOLD}/model/{name}" for name in FUSION_FILES] if config["train"]["fusion"] > 0 else [],
        measures=lambda wildcards: of_shards("baselines", TRAINING) if is_fused(None) else [],
        cells=lambda wildcards: of_shards("cells", TRAINING),
        tiles=lambda wildcards: of_shards("tiles", TRAINING),
        folds=rules.divide_folds.output.folds,
    output:
        # One job for all shards: in small collections, each has a few cells of a fold, and to load the network would
        # take longer than to predict them.
        [f"{OF_FOLD}/shards/{shard}.parquet" for shard in SHARDS.get(TRAINING, [])],
    log:
        "logs/predict_fold/{fold}.log",
    benchmark:
        "benchmarks/predict_fold/{fold}.tsv"
    resources:
        **GPU,
        mem_mb=grows(8000),
        # A fold has as many cells as this number of shards.
        runtime=grows(120 * max(1, -(-len(SHARDS.get(TRAINING, [])) // config["evaluation"]["folds"]))),
    params:
        model=lambda wildcards: f"{CROSS_VALIDATION}/{wildcards.fold}/model",
        precision=config["train"]["precision"],
        views=config["predict"]["views"],
        field_weight=config["predict"]["field_weight"],
        version=code_of("fold_table", "prediction"),


rule join_folds:
    """Join the predictions of all folds into the tables of a predicted collection."""
    input:
        predictions=expand(f"{OF_FOLD}/shards/{{shard}}.parquet", fold=FOLDS, shard=SHARDS.get(TRAINING, [])),
        cells=lambda wildcards: of_shards("cells", TRAINING),
        fields=lambda wildcards: of_shards("fields", TRAINING),
        annotations=lambda wildcards: of_shards("annotations", TRAINING),
        columns=rules.divide_folds.output.columns,
    output:
        shards=expand(f"{CROSS_VALIDATED}/shards/{{shard}}.parquet", shard=SHARDS.get(TRAINING, [])),
        cells=f"{CROSS_VALIDATED}/cells.parquet",
        fields=f"{CROSS_VALIDATED}/fields.parquet",
        proteins=f"{CROSS_VALIDATED}/proteins.parquet",
        h5ad=f"{CROSS_VALIDATED}/cells.h5ad",
    log:
        "logs/join_folds.log",
    benchmark:
        "benchmarks/join_folds.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        files=PREDICTED_IN_FOLDS,
        version=code_of("cross_validation", "pooling"),
    script:
        "../scripts/join_folds.py"


rule find_seen_folds:
    """Find the fields and cells that the network which predicts them has seen all the same, to leave them out of the scores."""
    input:
        unpack(tables_that_train),
        folds=rules.divide_folds.output.folds,
        examples=expand(f"{OF_FOLD}/examples.parquet", fold=FOLDS),
        pretraining=["results/pretraining/examples.parquet"] if PRETRAINING else [],
    output:
        f"{CROSS_VALIDATION}/evaluation/{TRAINING}/seen.parquet",
    log:
        "logs/find_seen_folds.log",
    benchmark:
        "benchmarks/find_seen_folds.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        collections=lambda wildcards: [{"name": name, "shards": SHARDS[name]} for name in training_collections(config)],
        group_by=config["curation"]["group_by"],
        start=START,
        start_seen=lambda wildcards: content_of(f"{START}/seen.npz") if START else None,
        version=code_of("seen.folds", "tables"),
    script:
        "../scripts/find_seen_folds.py"


use rule evaluate as evaluate_folds with:
    input:
        predictions=[f"{CROSS_VALIDATED}/{name}.parquet" for name in ("cells", "fields")],
        masks=lambda wildcards: of_shards("segmentation", TRAINING),
        truth=lambda wildcards: truth_files(TRAINING),
        seen=rules.find_seen_folds.output,
        measures=lambda wildcards: of_shards("baselines", TRAINING),
        baselines=expand(f"{OF_FOLD}/model/{{name}}", fold=FOLDS, name=BASELINE_FILES),
        folds=rules.divide_folds.output.folds,
        controls=[],
        model=[],
        decision=[],
    output:
        metrics=f"{CROSS_VALIDATION}/evaluation/metrics.json",
        per_class=f"{CROSS_VALIDATION}/evaluation/per_class.csv",
        others=[
            f"{CROSS_VALIDATION}/evaluation/{name}.csv"
            for name in ("scores", "baselines", "left_out", "confusion", "reliability", "pooled")
        ],
        cells=f"{CROSS_VALIDATION}/evaluation/{TRAINING}/cells.parquet",
    log:
        "logs/evaluate_folds.log",
    benchmark:
        "benchmarks/evaluate_folds.tsv"
    params:
        collections=lambda wildcards: [files_of(TRAINING) | {"predicted_in": CROSS_VALIDATION}],
        true_content=lambda wildcards: true_content(TRAINING),
        controls=[],
        unscored=None,
        checked=True,
        models=[f"{CROSS_VALIDATION}/{fold}/model" for fold in FOLDS],
        model_version=None,
        baselines_version=None,
        seed=config["seed"],
        version=code_of("baselines.prediction", "evaluation.folder", "fold_table", "network.fusion"),


use rule draw_scores as draw_score_folds with:
    input:
        [
            f"{CROSS_VALIDATION}/evaluation/{name}.csv"
            for name in ("per_class", "confusion", "reliability", "pooled", "scores")
        ],
    output:
        [
            f"{CROSS_VALIDATION}/evaluation/{TRAINING}/{name}.{suffix}"
            for name in EVALUATION_FIGURES
            for suffix in ("svg", "png")
        ],
    log:
        "logs/draw_score_folds.log",
    benchmark:
        "benchmarks/draw_score_folds.tsv"


rule browse_shard_folds:
    """Draw the fields and cells of one shard, with the activation map of each cell by the network that predicts it."""
    input:
        manifest=f"results/sheet/{TRAINING}/{{shard}}.csv",
        images=lambda wildcards: made(TRAINING, wildcards.shard),
        segmentation=f"results/segmentation/{TRAINING}/{{shard}}",
        cells=f"results/cells/{TRAINING}/{{shard}}.parquet",
        fields=f"results/cells/{TRAINING}/{{shard}}.fields.parquet",
        tiles=[f"results/tiles/{TRAINING}/{{shard}}/{colour}.tfrecord" for colour in COLOURS],
        predictions=f"{CROSS_VALIDATED}/shards/{{shard}}.parquet",
        of_folds=[f"{CROSS_VALIDATION}/{fold}/shards/{{shard}}.parquet" for fold in FOLDS],
        models=[f"{CROSS_VALIDATION}/{fold}/model/checksums.json" for fold in FOLDS],
    output:
        directory(f"{CROSS_VALIDATION}/browser/{TRAINING}/{{shard}}"),
    log:
        "logs/browse_shard_folds/{shard}.log",
    benchmark:
        "benchmarks/browse_shard_folds/{shard}.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        # The limit is divided evenly among the shards.
        most_fields=lambda wildcards: -(-config["browser"]["fields"] // len(SHARDS[TRAINING])),
        field_size=config["browser"]["field_size"],
        version=code_of("browser.activation", "browser.pictures"),
    script:
        "../scripts/browse_shard.py"


use rule browse as browse_folds with:
    input:
        tables=[f"{CROSS_VALIDATED}/{name}" for name in ("cells.parquet", "fields.parquet", "cells.h5ad")],
        pictures=expand(f"{CROSS_VALIDATION}/browser/{TRAINING}/{{shard}}", shard=SHARDS.get(TRAINING, [])),
        truth=expand(f"{CROSS_VALIDATION}/evaluation/{{collection}}/cells.parquet", collection=TRUE_IN_FOLDS),
    output:
        [f"{CROSS_VALIDATION}/browser/{name}" for name in (*BROWSER_FILES, "about.js", f"{TRAINING}/table.js")],
    log:
        "logs/browse_folds.log",
    benchmark:
        "benchmarks/browse_folds.tsv"
    params:
        collections=[PREDICTED_IN_FOLDS],
        true_cells=TRUE_IN_FOLDS,
        seed=config["seed"],
        version=code_of("browser.page"),
        app=files_version(*(f"browser/app/{name}" for name in BROWSER_FILES)),


rule describe_folds:
    """Put the scores of the cross-validation into one line, which the next run adds to the model card."""
    input:
        f"{CROSS_VALIDATION}/evaluation/scores.csv",
    output:
        summary=f"{CROSS_VALIDATION}/summary.json",
        made_with=f"{CROSS_VALIDATION}/settings.json",
    log:
        "logs/describe_folds.log",
    benchmark:
        "benchmarks/describe_folds.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        collection=TRAINING,
        folds=config["evaluation"]["folds"],
        group_by=config["curation"]["group_by"],
        made_with=cross_validation_settings,
        version=code_of("cross_validation"),
    script:
        "../scripts/describe_folds.py"
