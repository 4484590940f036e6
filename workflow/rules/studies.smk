"""Input functions, settings and checks of the studies of the network (interpret, few_shot)."""

@refusing
def require_interpretation():
    """Refuse the configuration unless there is a model to interpret and there are cells to study."""
    require_model()
    check_interpretation(config, SCANS)
    if SCANS:
        check_studied(SCANS, STUDIED, config)


@refusing
def require_few_shot():
    """Refuse the configuration unless there are cells that a person labelled."""
    require_model()
    check_few_shot(config, SCANS)


def of_study(*kinds):
    """Return the input function of the files of these kinds of all studied collections; drawn ones of those alone."""

    def inputs(wildcards):
        require_interpretation()
        found = [
            simulated_shards(name) if kind == "simulated" else of_shards(kind, name)
            for name in STUDIED
            for kind in kinds
        ]
        return [path for of_kind in found for path in of_kind]

    return inputs


def to_study(wildcards):
    """Return the tables from which the cells to study are chosen."""
    require_interpretation()
    return {
        "files": of_study("cells", "fields", "annotations")(wildcards),
        "truth": [path for name in SCORED for path in truth_files(name)],
        "left_out": SEEN,
        "examples": [] if config["model"]["path"] else ["results/dataset/examples.parquet"],
    }


def to_hold_out(wildcards):
    """Return the examples from which the held-out classes are left out."""
    require_interpretation()
    return f"{HELD_OUT_SOURCE}/examples.parquet"


def mixture_files(wildcards):
    """Return the pooled calls of the mixed fields, if there are any."""
    mixtures = config["interpretation"]["mixtures"]
    if not mixtures:
        return []
    require_interpretation()
    return [f"results/predictions/{mixtures['collection']}/fields.parquet"]


def mixture_table(wildcards):
    """Return the path and the content of the known fractions of the mixed fields; None if there are none."""
    mixtures = config["interpretation"]["mixtures"]
    if not mixtures:
        return None
    table = known_mixtures(config)
    return {"table": table, "content": content_of(table)} | numbers_of(mixtures["collection"])


def content_if_readable(table):
    """Return the digest of a table of a study; None if it cannot be read: other runs do not need it."""
    return content_of(table) if os.access(spelled_as_on_disk(table), os.R_OK) else None


def interpret_settings(wildcards):
    """Return the settings of the study of the network, by the names that left_over.csv shows."""
    settings = config["interpretation"]
    mixtures = settings["mixtures"]
    known = mixtures and mixtures["collection"] in COLLECTIONS
    return {
        **{f"interpretation.{key}": value for key, value in settings.items()},
        "content of interpretation.mixtures.table": content_if_readable(known_mixtures(config)) if known else None,
        "collections studied": STUDIED,
        "networks studied": STUDIED_MODELS,
        "seed": config["seed"],
    }


def few_shot_settings(wildcards):
    """Return the settings of the few-shot labels, by the names that left_over.csv shows."""
    table = config["few_shot"]["table"]
    return {
        **{f"few_shot.{key}": value for key, value in config["few_shot"].items()},
        "content of few_shot.table": content_if_readable(table) if table else None,
        "model": MODEL,
        "seed": config["seed"],
    }


@refusing
def require_folds():
    """Refuse the configuration unless its training can be cross-validated."""
    if config["model"]["path"]:
        refuse("config key model.path: cross_validate trains a network for each fold; leave model.path out")
    require_training()
    if SCANS:
        check_folds(SCANS[TRAINING], config)


def to_divide(wildcards):
    """Return the tables from which folds are made."""
    require_folds()
    return to_curate(TRAINING)(wildcards) | {"columns": table_of("columns", TRAINING)}


def cross_validate_outputs(wildcards):
    """Return the final files of the cross-validation."""
    require_folds()
    return [
        f"{CROSS_VALIDATION}/{name}"
        for name in (
            *(f"predictions/{TRAINING}/{table}" for table in ("cells.parquet", "fields.parquet", "cells.h5ad")),
            "evaluation/metrics.json",
            *(f"evaluation/{TRAINING}/{name}.{suffix}" for name in EVALUATION_FIGURES for suffix in ("svg", "png")),
            "browser/index.html",
            "summary.json",
        )
    ]


def cross_validation_settings(wildcards):
    """Return the settings of the cross-validation, by the names that left_over.csv shows."""
    return {
        **{f"train.{key}": value for key, value in TRAIN_SETTINGS.items()},
        "train.pretraining": PRETRAINING,
        "train.fusion": config["train"]["fusion"],
        "content of train.weights": content_of(*WEIGHTS),
        **{f"curation.{key}": value for key, value in config["curation"].items()},
        **{f"predict.{key}": config["predict"][key] for key in ("views", "field_weight")},
        "tiles": config["tiles"],
        "evaluation.folds": config["evaluation"]["folds"],
        "labels and groups of the fields": content_of(
            *(
                path
                for name in training_collections(config)
                for path in (*of_shards("annotations", name), *table_of("groups", name))
            )
        ),
        "content of truth.cells": true_content(*(name for name in training_collections(config) if name in COLLECTIONS)),
        "seed": config["seed"],
    }


def cross_validation():
    """Return the last file of the cross-validation, what it was made from and its settings; None if there is none."""
    made = f"{CROSS_VALIDATION}/summary.json"
    if config["model"]["path"] or not os.path.exists(made):
        return None
    return made, of_shards("cells", *training_collections(config)), cross_validation_settings(None)


def cross_validation_of_card(wildcards):
    """Return, as a parameter, the line of the cross-validation if one was made with this configuration."""
    found = cross_validation()
    if found is None or outdated(*found[:2]) or other_settings(f"{CROSS_VALIDATION}/settings.json", found[2]):
        return None
    return {"summary": found[0], "content": content_of(found[0])}


def few_shot_inputs(wildcards):
    """Return the predictions, with the embeddings, of the collection whose cells are to be labelled."""
    require_few_shot()
    return of_shards("predictions", FEW_SHOT)
