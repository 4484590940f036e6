"""The report.

Inputs: everything that is to be in it.
Outputs: the configuration, software and jobs of the run, and what earlier runs left; report.zip, which opens offline.
Steps: record what the run was made with; Snakemake's own report over the finished files.
"""

from snakemake.io import strip_wildcard_constraints

# Stages whose jobs are not listed: those of targets of their own, and those that run after the list is made.
UNLISTED_STAGES = {
    *("study_cells", "study_networks", "study_morphology", "interpret", "few_shot"),
    *("held_out", "records_held_out", "train_held_out"),
    *("record_run", "report"),
}


def listed_jobs(wildcards):
    """Return the benchmark files of the jobs that this configuration asks for, whichever of them ran."""
    used = [name for name in used_collections(wildcards) if name in COLLECTIONS]
    explored = dict.fromkeys([*used, EXPLORED])
    of_stage = {
        **dict.fromkeys(("predict", "aggregate", "submit", "browse_shard"), PREDICTED),
        **{stage: [name for name in explored if stage in COLLECTIONS[name]] for stage in ("simulate", "download")},
    }
    found = []
    for rule in workflow.rules:
        # Another workflow with this one as a module has rules of its own.
        if rule.benchmark is None or rule.module_globals is not globals():
            continue
        pattern = strip_wildcard_constraints(str(rule.benchmark))
        stage = Path(pattern).with_suffix("").parts[1]
        if stage in UNLISTED_STAGES:
            continue
        for name in of_stage.get(stage, used):
            found += expand(pattern, collection=name, shard=SHARDS[name], control=CONTROLS)
    return sorted(set(found))


def kept_paths():
    """Return what this configuration makes at the places where another one makes other files."""
    used = [name for name in used_collections(None) if name in COLLECTIONS]
    kept = [f"results/sheet/{name}" for name in COLLECTIONS]
    kept += [f"results/sheet/{name}/truth.csv" for name in COLLECTIONS if "truth" in COLLECTIONS[name]]
    kept += expand("results/sheet/{collection}.parquet", collection=used)
    for name in used:
        kept += expand("results/{stage}/{name}", stage=["segmentation", "cells", "tiles"], name=name)
        kept += of_shards("results/segmentation/{collection}/{shard}", name)
        kept += of_shards("results/cells/{collection}/{shard}.parquet", name)
        kept += of_shards("results/cells/{collection}/{shard}.fields.parquet", name)
        kept += of_shards("results/tiles/{collection}/{shard}", name)
    for name in PREDICTED:
        kept += expand("results/{stage}/{name}", stage=["predictions", "browser"], name=name)
        kept += of_shards("results/predictions/{collection}/shards/{shard}.parquet", name)
        kept += of_shards("results/browser/{collection}/{shard}", name)
    kept += expand("results/evaluation/{collection}", collection=SCORED)
    kept += expand("results/controls/{control}", control=CONTROLS)
    kept += [f"results/few_shot/{FEW_SHOT}"] if config["few_shot"]["table"] else []
    kept += ["results/held_out"] if HELD_OUT else []
    kept += ["results/pretraining"] if PRETRAINING else []
    kept += explore_outputs() + model_outputs(None)
    if config["model"]["path"]:
        # A model of an earlier run here may be the one that predicts.
        kept += [str(folder) for folder in Path(os.path.relpath(MODEL)).parents] + [os.path.relpath(MODEL)]
    else:
        kept += ["results/dataset", "results/model", "results/figures/receptive_field.npz"]
    return kept


def studies():
    """Return what targets of their own made, which are no part of this run: {target: its last file, its sources}."""
    scored = expand("results/predictions/{collection}/cells.parquet", collection=SCORED or PREDICTED)
    return {
        "interpret": ("results/interpretation/claims.json", [*scored, f"{MODEL}/model.keras"]),
        "few_shot": (
            f"results/few_shot/{FEW_SHOT}/summary.json",
            [f"results/predictions/{FEW_SHOT}/cells.parquet", config["few_shot"]["table"] or ""],
        ),
    }


def study_times(wildcards):
    """Return when each of the studies was made: a newer one is not what the list says of it."""
    return {target: os.path.exists(made) and os.stat(made).st_mtime_ns for target, (made, _) in studies().items()}


rule record_run:
    """Record the configuration, software and jobs of this run."""
    input:
        explore_outputs(),
        predict_outputs,
        model_outputs,
    output:
        config=report(
            "results/run/config.yaml",
            caption="../report/config.rst",
            category="Run",
            labels={"table": "configuration, with every default"},
        ),
        software=report(
            "results/run/software.csv",
            caption="../report/software.rst",
            category="Run",
            labels={"table": "software"},
        ),
        jobs=report(
            "results/run/jobs.csv",
            caption="../report/jobs.rst",
            category="Run",
            labels={"table": "time and memory of the jobs"},
        ),
        left_over=report(
            LEFT_OVER,
            caption="../report/left_over.rst",
            category="Run",
            labels={"table": "what earlier runs left"},
        ),
    log:
        "logs/record_run.log",
    benchmark:
        "benchmarks/record_run.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        config=config,
        environments=sorted(
            str(HERE / f"envs/{name}.yaml")
            for name in (
                "analysis",
                "tensorflow",
                "segmentation" if config["segmentation"]["backend"] != "hpacellseg" else "hpacellseg",
            )
        ),
        jobs=listed_jobs,
        unconfigured=lambda wildcards: unconfigured(kept_paths()),
        studies=studies(),
        studied=STUDIED,
        study_times=study_times,
        version=code_of("provenance", "left_over"),
    script:
        "../scripts/record_run.py"


rule report_zip:
    """Collect figures, tables, run statistics and configuration into one archive."""
    input:
        explore_outputs(),
        predict_outputs,
        model_outputs,
        rules.record_run.output,
    output:
        "results/report.zip",
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        python=sys.executable,
        snakefile=str(HERE / "Snakefile"),
        config=config,
    script:
        "../scripts/report_zip.py"
