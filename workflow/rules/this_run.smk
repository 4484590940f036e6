"""Separate this run from earlier runs: the jobs to list, the paths to keep, the studies to check."""

from snakemake.io import strip_wildcard_constraints

# Stages whose jobs are not listed: those of separate targets, and those that run after the list is made.
UNLISTED_STAGES = {
    *("study_cells", "study_networks", "study_morphology", "judge_claims", "draw_interpretation", "few_shot"),
    *("held_out", "records_held_out", "train_held_out", "pack_model"),
    *("divide_folds", "curate_fold", "records_fold", "train_fold", "learn_baselines_fold"),
    *("learn_fusion_fold", "predict_fold"),
    *("join_folds", "find_seen_folds", "evaluate_folds", "draw_score_folds", "describe_folds"),
    *("browse_shard_folds", "browse_folds"),
    *("geojson_shard", "ome_zarr_shard", "spatialdata_shard", "export_onnx", "export_crate"),
    *("score_hpav23", "record_run", "report"),
}


def listed_jobs(wildcards):
    """Return the benchmark files of the jobs that this configuration requires, even if they did not run now."""
    used = [name for name in used_collections(wildcards) if name in COLLECTIONS]
    explored = dict.fromkeys([*used, EXPLORED])
    of_stage = {
        **dict.fromkeys(("predict", "aggregate", "submit", "browse_shard"), PREDICTED),
        **{stage: [name for name in explored if stage in COLLECTIONS[name]] for stage in ("simulate", "download")},
        "segment": [name for name in used if name not in CROPS],
        "mark_crops": [name for name in used if name in CROPS],
        "measure_baselines": measured_collections(),
        "find_seen": SCORED if CHECKED else [],
        "import_images": [name for name in explored if imports(name)],
    }
    files = {"learn_mixtures": reading_files(None), "learn_fusion": fusion_files(None)}
    unused = [stage for stage, made in files.items() if not made]
    found = []
    for made_by in workflow.rules:
        # Another workflow with this one as a module has its own rules; a rule of this one that it changes has the
        # globals of a second parse.
        if made_by.benchmark is None or (made_by.module_globals or {}).get("HERE") != HERE:
            continue
        pattern = strip_wildcard_constraints(str(made_by.benchmark))
        stage = Path(pattern).with_suffix("").parts[1]
        if stage in UNLISTED_STAGES or stage in unused:
            continue
        for name in of_stage.get(stage, used):
            found += expand(pattern, collection=name, shard=SHARDS[name], control=CONTROLS)
    return sorted(set(found))


def kept_paths():
    """Return what this configuration makes in the places where another configuration makes other files."""
    used = [name for name in used_collections(None) if name in COLLECTIONS]
    kept = [f"results/sheet/{name}" for name in COLLECTIONS]
    kept += expand(PATTERNS["true_states"], collection=[name for name in COLLECTIONS if "truth" in COLLECTIONS[name]])
    kept += expand("results/sheet/{collection}.parquet", collection=used)
    for name in {*used, EXPLORED}:
        kept += [f"results/imported/{name}", *of_shards("imported", name)] if imports(name) else []
    for name in used:
        kept += expand("results/{stage}/{name}", stage=["segmentation", "cells", "tiles"], name=name)
        kept += of_shards("segmentation", name) + of_shards("cells", name) + of_shards("fields", name)
        kept += {str(Path(tiles).parent) for tiles in of_shards("tiles", name)}
    for name in PREDICTED:
        kept += expand("results/{stage}/{name}", stage=["predictions", "browser"], name=name)
        kept += of_shards("predictions", name) + of_shards("pictures", name)
        kept += expand("results/predictions/{name}/{table}", name=name, table=POOLED)
        kept += [f"results/export/{format}/{name}" for format in EXPORTERS]
        kept += expand("results/export/{format}/{name}/{shard}", format=EXPORTERS, name=name, shard=SHARDS[name])
    kept += expand("results/evaluation/{collection}", collection=SCORED)
    measured = measured_collections()
    kept += expand("results/baselines/{collection}", collection=measured) + of_shards("baselines", *measured)
    kept += expand("results/controls/{control}", control=CONTROLS)
    kept += [f"results/few_shot/{FEW_SHOT}"] if config["few_shot"]["table"] else []
    kept += ["results/held_out"] if HELD_OUT else []
    kept += ["results/pretraining"] if PRETRAINING else []
    kept += explore_outputs() + model_outputs(None)
    if not config["model"]["path"]:
        kept += ["results/dataset", "results/model", "results/figures/receptive_field.npz", *reading_files(None)]
        kept += fusion_files(None)
        kept += kept_of_folds()
    return kept


def kept_of_folds():
    """Return what `cross_validate` makes with this configuration."""
    folder = CROSS_VALIDATION
    shards = SHARDS.get(TRAINING, [])
    kept = [folder, *(f"{folder}/{name}" for name in ("predictions", "evaluation", "browser", *FOLDS))]
    kept += [f"{folder}/{name}/{TRAINING}" for name in ("predictions", "evaluation", "browser")]
    kept += expand(f"{folder}/{{fold}}/shards/{{shard}}.parquet", fold=FOLDS, shard=shards)
    kept += expand(f"{folder}/predictions/{TRAINING}/shards/{{shard}}.parquet", shard=shards)
    return kept + expand(f"{folder}/browser/{TRAINING}/{{shard}}", shard=shards)


def model_in_use():
    """Return the folder that model.path names, and its files that an earlier run may have left in results/model."""
    return [MODEL, *(f"{MODEL}/{name}" for name in (*READING_FILES, *FUSION_FILES))] if config["model"]["path"] else []


def studies():
    """Return the results of separate targets, not part of this run: {target: (last file, sources, settings)}."""
    scored = expand("results/predictions/{collection}/cells.parquet", collection=SCORED or PREDICTED)
    # Its settings have digests of tables, which other runs do not need.
    made = cross_validation()
    return ({"cross_validate": made} if made else {}) | {
        "interpret": (
            "results/interpretation/claims.json",
            [*scored, f"{MODEL}/model.keras"],
            interpret_settings(None),
        ),
        "few_shot": (
            f"results/few_shot/{FEW_SHOT}/summary.json",
            [f"results/predictions/{FEW_SHOT}/cells.parquet"],
            few_shot_settings(None),
        ),
    }


def study_times(wildcards):
    """Return the time of each study: for a newer study, the list is out of date."""
    return {target: os.path.exists(made) and os.stat(made).st_mtime_ns for target, (made, *_) in studies().items()}


def is_new(path):
    """Return whether this run wrote a file: a file of an earlier run says nothing about this run."""
    return os.path.exists(path) and os.path.getmtime(path) >= STARTED
