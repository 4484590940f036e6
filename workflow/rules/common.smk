"""What every stage shares: the checked configuration, the scan of sheets and folders, and the manifests.

The scan happens once, in the process a person starts. Jobs find the manifests and scan nothing.
"""

import os
from pathlib import Path

from snakemake.exceptions import WorkflowError

from hpaloc.classes import COLOURS
from hpaloc.config import ConfigError, check_prediction, check_training, complete
from hpaloc.sheet import SheetError, scan_collection, shards_of, simulated_folder
from hpaloc.version import room_version

try:
    config = complete(config)
    COLLECTIONS = config["collections"]
    if workflow.is_main_process:
        SHARDS = {name: scan_collection(name, config) for name in COLLECTIONS}
    else:
        SHARDS = {name: shards_of(f"results/sheet/{name}") for name in COLLECTIONS}
except (ConfigError, SheetError) as error:
    raise WorkflowError(str(error))

TRAINING = config["train"]["collection"]
CHANNELS = config["train"]["channels"]
MODEL = config["model"]["path"] or "results/model"
MODEL_FILES = ("model.keras", "config.json", "thresholds.json", "checksums.json")
PREDICTED = config["predict"]["collections"]
SCORED = [name for name in PREDICTED if COLLECTIONS.get(name, {}).get("labels")]


wildcard_constraints:
    collection="|".join(COLLECTIONS),
    shard=r"\d+",
    colour="|".join(COLOURS),


def grows(megabytes, factor=2):
    """Return a resource function: ``megabytes``, times ``factor`` at each further attempt."""

    def of_attempt(wildcards, attempt):
        return megabytes * factor ** (attempt - 1)

    return of_attempt


def of_shards(pattern, collection):
    """Return ``pattern`` filled in for every shard of a collection that holds fields."""
    return expand(pattern, collection=collection, shard=SHARDS[collection])


def simulated(wildcards):
    """Return the folder of a shard's simulated files where its collection is simulated."""
    if "simulate" not in COLLECTIONS[wildcards.collection]:
        return []
    return simulated_folder(wildcards.collection, wildcards.shard)


def simulated_shards(collection):
    """Return the folders of a collection's simulated files where it is simulated."""
    if "simulate" not in COLLECTIONS[collection]:
        return []
    return [simulated_folder(collection, shard) for shard in SHARDS[collection]]


def truth_cells(collection):
    """Return the tables of the true cells of a collection, or nothing where it has none."""
    if "simulate" in COLLECTIONS[collection]:
        return []
    return COLLECTIONS[collection].get("truth", {}).get("cells", [])


def checked(check):
    """Run a check of the configuration and turn its error into the one that Snakemake prints plainly."""
    try:
        check(config)
    except ConfigError as error:
        raise WorkflowError(str(error))


def training_collection(wildcards):
    """Return the training collection once the configuration is known to be fit for training."""
    checked(check_training)
    return TRAINING


def model_files(wildcards):
    """Return the files of the model that predicts: the one named by model.path, or the one trained here."""
    return [f"{MODEL}/{name}" for name in MODEL_FILES]


def used_collections(wildcards):
    """Return the names of the collections that this run trains on or predicts."""
    return list(dict.fromkeys([*PREDICTED, *([] if config["model"]["path"] else [TRAINING])]))


def predict_outputs(wildcards):
    """Return the final files of the collections to predict, and their scores where there is something to score."""
    checked(check_prediction)
    names = ["cells.parquet", "fields.parquet", "submission.csv", "cells.h5ad"]
    files = expand("results/predictions/{collection}/{name}", collection=PREDICTED, name=names)
    files.append("results/sheet/rejected.csv")
    return files + (["results/evaluation/metrics.json"] if SCORED else [])


def trained_elsewhere(wildcards):
    """Return the final files of a prediction with a model that exists; raise where none is named."""
    path = config["model"]["path"]
    if path is None:
        raise WorkflowError("config key model.path: predict_only needs the folder of a trained model")
    for name in MODEL_FILES:
        if not os.path.exists(f"{path}/{name}"):
            raise WorkflowError(f"config key model.path: {path} is no model folder ({name} is missing)")
    return predict_outputs(wildcards)
