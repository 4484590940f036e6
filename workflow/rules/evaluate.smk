"""Scores.

Inputs: the predictions of the labelled collections, their masks, and their truth per cell if there is one; what trained
the model.
Outputs: metrics.json, tables per class, confusion matrices; figures of them.
Steps: find what training has seen, which is left out; match predicted to true cells, score, resample groups for
intervals; draw. If there is nothing to score, the files are written too, and say so: otherwise scores of an earlier run
would look like those of this run.
"""

UNSCORED = None
if not SCORED:
    of_labels = [name for name in PREDICTED if COLLECTIONS[name]["labels"]]
    UNSCORED = (
        f"nothing is scored: the labelled cells that are predicted (collection {', '.join(of_labels)}) trained the model"
        if of_labels
        else f"nothing is scored: no collection that is predicted ({', '.join(PREDICTED)}) has labels (labels: true)"
    )
UNCHECKED = None
if SCORED and not CHECKED:
    UNCHECKED = (
        f"what trained the model is not left out of the scores, because {MODEL}/seen.npz, which says it, is missing"
    )


rule find_seen:
    """Find the fields and cells of a labelled collection that training has seen, to leave them out of the scores."""
    input:
        seen=[] if config["model"]["path"] else "results/dataset/seen.npz",
        cells=lambda wildcards: of_shards("cells", wildcards.collection),
        fields=lambda wildcards: of_shards("fields", wildcards.collection),
        annotations=lambda wildcards: of_shards("annotations", wildcards.collection),
        columns=other_columns,
    output:
        "results/evaluation/{collection}/seen.parquet",
    log:
        "logs/find_seen/{collection}.log",
    benchmark:
        "benchmarks/find_seen/{collection}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        model=MODEL,
        model_seen=version_of_model("seen.npz"),
        shards=lambda wildcards: SHARDS[wildcards.collection],
        group_by=config["curation"]["group_by"],
        version=code_of("seen.finding", "tables"),
    script:
        "../scripts/find_seen.py"


rule measure_baselines:
    """Measure the cells of one shard as the baselines of the network take them."""
    input:
        cells="results/cells/{collection}/{shard}.parquet",
        fields="results/cells/{collection}/{shard}.fields.parquet",
        segmentation="results/segmentation/{collection}/{shard}",
        tiles=[f"results/tiles/{{collection}}/{{shard}}/{colour}.tfrecord" for colour in COLOURS],
    output:
        "results/baselines/{collection}/{shard}.parquet",
    log:
        "logs/measure_baselines/{collection}/{shard}.log",
    benchmark:
        "benchmarks/measure_baselines/{collection}/{shard}.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 8
    resources:
        **GPU,
        mem_mb=grows(8000),
        runtime=grows(120),
    params:
        tiles_of_model=lambda wildcards: tiles_of_model(),
        enlarge=lambda wildcards: wildcards.collection not in CROPS,
        version=code_of("baselines.measures"),
    script:
        "../scripts/measure_baselines.py"


rule evaluate:
    """Score the predictions of the labelled collections."""
    input:
        predictions=expand(
            "results/predictions/{collection}/{name}.parquet",
            collection=SCORED,
            name=["cells", "fields"],
        ),
        masks=of_shards("segmentation", *SCORED),
        truth=[path for name in SCORED for path in truth_files(name)],
        seen=SEEN,
        measures=measures_to_compare,
        baselines=trained_here(*BASELINE_FILES) if SCORED else [],
        controls=expand("results/controls/{control}/model/config.json", control=CONTROLS),
        model=f"{MODEL}/config.json" if CONTROLS else [],
        decision=model_files if SCORED else [],
        fusion=fusion_files if SCORED else [],
    output:
        metrics=report(
            METRICS,
            caption="../report/metrics.rst",
            category="Scores",
            subcategory="Tables",
            labels={"table": "all scores", "format": "json"},
        ),
        per_class=report(
            "results/evaluation/per_class.csv",
            caption="../report/per_class.rst",
            category="Scores",
            subcategory="Tables",
            labels={"table": "scores per location", "format": "csv"},
        ),
        others=[
            report(
                f"results/evaluation/{name}.csv",
                caption=f"../report/{caption}.rst",
                category="Scores",
                subcategory="Tables",
                labels={"table": title, "format": "csv"},
            )
            for name, caption, title in (
                ("scores", "metrics", "scores with intervals"),
                ("baselines", "baselines", "the network and its baselines"),
                ("left_out", "left_out", "what training has seen, which is not scored"),
                ("confusion", "confusion", "confusion of locations"),
                ("reliability", "reliability", "reliability of confidences"),
                ("pooled", "pooled", "accuracy of pooled calls"),
            )
        ],
        cells=expand("results/evaluation/{collection}/cells.parquet", collection=SCORED),
    log:
        "logs/evaluate.log",
    benchmark:
        "benchmarks/evaluate.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        collections=[files_of(name) for name in SCORED],
        true_content=lambda wildcards: true_content(*SCORED),
        controls=CONTROLS,
        unscored=UNSCORED,
        checked=CHECKED,
        models=[MODEL],
        fused=is_fused if SCORED else None,
        model_version=model_version if SCORED else None,
        baselines_version=version_of_model("baselines.json") if SCORED else None,
        seed=config["seed"],
        version=code_of("baselines.prediction", "evaluation.folder", "fold_table", "network.fusion"),
    script:
        "../scripts/evaluate.py"


rule draw_scores:
    """Draw the scores of the labelled collections."""
    input:
        expand(
            "results/evaluation/{name}.csv",
            name=["per_class", "confusion", "reliability", "pooled", "scores"],
        ),
    output:
        [
            report(
                f"results/evaluation/{collection}/{name}.{suffix}",
                caption=f"../report/{name}.rst",
                category="Scores",
                subcategory=f"Figures of {collection}",
                labels={"figure": EVALUATION_FIGURES[name], "format": suffix},
            )
            for collection in SCORED
            for name in EVALUATION_FIGURES
            for suffix in ("svg", "png")
        ],
    log:
        "logs/draw_scores.log",
    benchmark:
        "benchmarks/draw_scores.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        version=code_of("figures.scores"),
    script:
        "../scripts/draw_scores.py"
