"""What the network learned.

Inputs: the model, the tiles, images and masks of labelled cells, and their predictions.
Outputs: results/interpretation, with tables, figures and claims.md, the verdict on each claim of the method.
Steps: choose cells; run them through the network and its controls; measure CellProfiler's features; compare;
draw. If classes are held out, a network is first trained without them.
"""


rule study_cells:
    """Choose the labelled cells to study, preferably cells that did not train the network."""
    input:
        unpack(to_study),
    output:
        "results/interpretation/cells.parquet",
    log:
        "logs/study_cells.log",
    benchmark:
        "benchmarks/study_cells.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(30),
    params:
        collections=lambda wildcards: [files_of(name) for name in STUDIED],
        true_content=lambda wildcards: true_content(*STUDIED),
        training=TRAINING,
        cells=config["interpretation"]["cells"],
        held_out=config["interpretation"]["held_out"],
        seed=config["seed"],
        version=code_of("interpretation.cells", "interpretation.studied", "joining", "matching"),
    script:
        "../scripts/study_cells.py"


rule study_networks:
    """Run the cells through the network and its controls."""
    input:
        cells="results/interpretation/cells.parquet",
        files=of_study("manifest", "cells", "fields", "tiles", "simulated"),
        models=[path for folder in STUDIED_MODELS.values() for path in trained_here(*MODEL_FILES, folder=folder)],
    output:
        directory("results/interpretation/network"),
    log:
        "logs/study_networks.log",
    benchmark:
        "benchmarks/study_networks.tsv"
    conda:
        "../../envs/tensorflow.yaml"
    threads: 8
    resources:
        **GPU,
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        shards=lambda wildcards: {name: SHARDS[name] for name in STUDIED},
        models=STUDIED_MODELS,
        model_version=model_version,
        fields=config["interpretation"]["fields"],
        seed=config["seed"],
        version=code_of("interpretation.study", "interpretation.studied"),
    script:
        "../scripts/study_networks.py"


rule study_morphology:
    """Measure CellProfiler's features of the cells."""
    input:
        cells="results/interpretation/cells.parquet",
        files=of_study("manifest", "fields", "segmentation", "simulated"),
    output:
        "results/interpretation/morphology.parquet",
    log:
        "logs/study_morphology.log",
    benchmark:
        "benchmarks/study_morphology.tsv"
    conda:
        "../../envs/interpretation.yaml"
    threads: 8
    resources:
        mem_mb=grows(16000),
        runtime=grows(60),
    params:
        shards=lambda wildcards: {name: SHARDS[name] for name in STUDIED},
        version=code_of("interpretation.morphology", "interpretation.studied"),
    script:
        "../scripts/study_morphology.py"


rule judge_claims:
    """Analyse what the network learned, and judge the claims of the method."""
    input:
        cells="results/interpretation/cells.parquet",
        network="results/interpretation/network",
        morphology="results/interpretation/morphology.parquet",
        predictions=expand(
            "results/predictions/{collection}/cells.parquet",
            collection=SCORED,
        ),
        left_out=SEEN,
        mixtures=mixture_files,
    output:
        claims=report(
            "results/interpretation/claims.md",
            caption="../report/claims.rst",
            category="Interpretation",
            labels={"table": "claims and verdicts"},
        ),
        others=expand(
            "results/interpretation/{name}",
            name=[
                "claims.json",
                "separation.csv",
                "unit_layers.csv",
                "few_shot.csv",
                "neighbours.parquet",
                "planar.parquet",
                "units.parquet",
            ],
        ),
        made_with="results/interpretation/settings.json",
    log:
        "logs/judge_claims.log",
    benchmark:
        "benchmarks/judge_claims.tsv"
    conda:
        "../../envs/interpretation.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        settings={key: config["interpretation"][key] for key in ("permutations", "held_out", "examples", "draws")},
        mixtures=mixture_table,
        collections=SCORED,
        checked=CHECKED,
        seed=config["seed"],
        made_with=interpret_settings,
        version=code_of("interpretation.analysis"),
    script:
        "../scripts/judge_claims.py"


rule draw_interpretation:
    """Draw what the network learned."""
    input:
        network="results/interpretation/network",
        tables=expand(
            "results/interpretation/{name}",
            name=[
                "planar.parquet",
                "separation.csv",
                "units.parquet",
                "unit_layers.csv",
                "few_shot.csv",
            ],
        ),
    output:
        [
            report(
                f"results/interpretation/{name}.{suffix}",
                caption="../report/interpretation.rst",
                category="Interpretation",
                labels={"figure": name.replace("_", " "), "format": suffix},
            )
            for name in INTERPRETATION_FIGURES
            for suffix in ("svg", "png")
        ],
    log:
        "logs/draw_interpretation.log",
    benchmark:
        "benchmarks/draw_interpretation.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        version=code_of("figures.interpretation"),
    script:
        "../scripts/draw_interpretation.py"


rule few_shot:
    """Learn labels from a few cells that a person labelled, and give every cell of a collection one of them."""
    input:
        predictions=few_shot_inputs,
    output:
        cells=f"results/few_shot/{FEW_SHOT}/cells.parquet",
        csv=f"results/few_shot/{FEW_SHOT}/cells.csv",
        summary=f"results/few_shot/{FEW_SHOT}/summary.json",
        page=f"results/few_shot/{FEW_SHOT}/README.md",
        made_with=f"results/few_shot/{FEW_SHOT}/settings.json",
    log:
        "logs/few_shot.log",
    benchmark:
        "benchmarks/few_shot.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(30),
    params:
        model=MODEL,
        table=config["few_shot"]["table"],
        table_content=lambda wildcards: content_of(config["few_shot"]["table"]),
        collection=FEW_SHOT,
        learner=config["few_shot"]["learner"],
        seed=config["seed"],
        made_with=few_shot_settings,
        version=code_of("interpretation.few_shot"),
    script:
        "../scripts/few_shot.py"
