"""What every stage shares: the checked configuration, the scan of sheets and folders, and the manifests.

The scan happens once, in the process a person starts. Jobs find the manifests and scan nothing.
"""

import os
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

from hpaloc.classes import COLOURS
from hpaloc.config import (
    MODEL_FILES,
    ConfigError,
    check_few_shot,
    check_interpretation,
    check_model,
    check_training,
    complete,
    shortened,
    training_collections,
)
from hpaloc.files import digest
from hpaloc.left_over import left_over_lines, unconfigured
from hpaloc.manifests import shards_of
from hpaloc.scan import downloaded_folder, scan_collection, simulated_folder, summary_lines, write_scan
from hpaloc.sheet import SheetError
from hpaloc.version import files_version, room_version

STARTED = time.time()
SUMMARY = "results/sheet/summary.csv"
METRICS = "results/evaluation/metrics.json"
LEFT_OVER = "results/run/left_over.csv"


def under_way():
    """Return whether a run holds the lock of this working directory and has written its manifests."""
    if not any(Path(".snakemake/locks").glob("*")):
        return False
    if workflow.is_main_process:
        sentence = (
            "another run works in this folder, or one was killed here; if none does, `snakemake --unlock` frees it"
        )
        print(sentence, file=sys.stderr)
    return Path("results/sheet").is_dir()


try:
    config = complete(config)
    COLLECTIONS = config["collections"]
    # Jobs read the manifests that the driver wrote; and while a run is under way, a second process leaves them alone.
    if workflow.is_main_process and not under_way():
        # Every collection is read before the first manifest is written: a wrong sheet leaves those of the others alone.
        SCANS = {name: scan_collection(name, config) for name in COLLECTIONS}
        SHARDS = {name: write_scan(scan, f"results/sheet/{name}") for name, scan in SCANS.items()}
    else:
        SHARDS = {name: shards_of(f"results/sheet/{name}") for name in COLLECTIONS}
except (ConfigError, SheetError) as error:
    raise WorkflowError(str(error))
except OSError as error:
    raise WorkflowError(f"{error.filename}: cannot be written or read ({error.strerror})")


def manifest_states():
    """Return the size and time of every manifest."""
    stats = {str(path): path.stat() for path in Path("results/sheet").glob("*/*.csv")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


PLANNED_MANIFESTS = manifest_states()


onstart:
    # From here on this run holds the lock, and a second process leaves the manifests alone. Before, it did not.
    if manifest_states() != PLANNED_MANIFESTS:
        raise WorkflowError(
            "results/sheet was changed by another snakemake with other settings after this run was planned; start it again"
        )


TRAINING = config["train"]["collection"]
PRETRAINING = None if config["model"]["path"] else config["train"]["pretraining"]
CONTROLS = [] if config["model"]["path"] else config["evaluation"]["controls"]
# What changes the weights of the network; where it runs does not.
TRAIN_SETTINGS = {key: value for key, value in config["train"].items() if key not in ("gpu", "pretraining", "blends")}
FINAL_SETTINGS = {
    **TRAIN_SETTINGS,
    **({"weights": "results/pretraining/model/model.keras"} if PRETRAINING else {}),
}
# The file that a training starts from, where it is named: another one of the same name is another training.
WEIGHTS = [] if config["train"]["weights"] in ("none", "imagenet") else [config["train"]["weights"]]
MODEL = config["model"]["path"] or "results/model"
PREDICTED = config["predict"]["collections"]
# A model is not scored on the cells it was trained on; history.csv and the model card have its validation scores.
SCORED = [
    name
    for name in PREDICTED
    if COLLECTIONS[name]["labels"] and (config["model"]["path"] or name not in training_collections(config))
]
# The figures of the data are of the collection that trains or, where it is not there, of the first labelled one; with a
# model of one's own, of one that is predicted.
EXPLORABLE = PREDICTED if config["model"]["path"] else [TRAINING, *COLLECTIONS]
LABELLED = [name for name in EXPLORABLE if COLLECTIONS.get(name, {}).get("labels")]
EXPLORED = [*LABELLED, *(name for name in EXPLORABLE if name in COLLECTIONS), *COLLECTIONS][0]
# The figures and their titles in the report.
EXPLORE_FIGURES = {"figure3_channels": "the four channels of a field"}
if LABELLED:
    EXPLORE_FIGURES = {
        "figure1_labels": "fields per location",
        "figure2a_labels_per_field": "locations per field",
        "figure2b_co_occurrence": "locations that occur together",
        **EXPLORE_FIGURES,
        "figure4_locations": "a field of each location",
    }
TRAINING_FIGURES = {
    "figure6_learning_rate": "learning rate",
    "figure7a_loss": "loss",
    "figure7b_accuracy": "accuracy",
    "figure7c_auc": "area under the ROC curve",
    "figure8_receptive_field": "receptive field",
}
EVALUATION_FIGURES = {
    "confusion": "confusion of locations",
    "per_class": "scores per location",
    "reliability": "reliability of confidences",
    "pooled": "accuracy of pooled calls",
}
# What stands beside the collections in the folder of the cell browser; the page first.
BROWSER_FILES = ("index.html", "browser.js", "browser.css", "LICENCES.txt")
# What is studied of the network: labelled cells that did not train it where there are such, and what it is held against.
STUDIED = [*SCORED, *([] if config["model"]["path"] else [TRAINING])]
HELD_OUT = [] if config["model"]["path"] else config["interpretation"]["held_out"]
HELD_OUT_SOURCE = "results/pretraining" if PRETRAINING else "results/dataset"
STUDIED_MODELS = {
    "trained": MODEL,
    **({"shuffled_labels": "results/controls/shuffled_labels/model"} if "shuffled_labels" in CONTROLS else {}),
    **({"held_out": "results/held_out/model"} if HELD_OUT else {}),
}
INTERPRETATION_FIGURES = (
    *(f"patches_{layer}" for layer in ("stem", "stage_1", "stage_2", "stage_3", "stage_4")),
    "planar",
    "separation",
    "units",
    "activation_maps",
    "few_shot",
)
FEW_SHOT = config["few_shot"]["collection"]
TRUE_LABELS = config["curation"]["labels"] == "cells"
# A GPU is asked for unless the configuration rules it out; where no limit is set, a local run ignores the request.
GPU = {} if config["train"]["gpu"] == "none" else {"gpu": 1}


wildcard_constraints:
    collection="|".join(COLLECTIONS),
    shard=r"\d+",
    colour="|".join(COLOURS),


def grows(megabytes, factor=2):
    """Return a resource function: ``megabytes``, times ``factor`` at each further attempt."""

    def of_attempt(wildcards, attempt):
        return megabytes * factor ** (attempt - 1)

    return of_attempt


def code_of(*rooms):
    """Return the parameter function of the version of rooms of the library.

    A function, since every job parses all rules: only the rooms of the rules that run are then read.
    """

    def version(wildcards):
        return room_version(*rooms)

    return version


def of_shards(pattern, collection):
    """Return ``pattern`` filled in for every shard of a collection that holds fields."""
    return expand(pattern, collection=collection, shard=SHARDS[collection])


def made(collection, shard):
    """Return what must be there before a shard's files can be read: nothing, where they were there before the run."""
    if "simulate" in COLLECTIONS[collection]:
        return [simulated_folder(collection, shard)]
    if "download" in COLLECTIONS[collection]:
        return [f"{downloaded_folder(collection, shard)}.csv"]
    return []


def made_images(wildcards):
    """Return what must be there before a shard's channel files can be read."""
    return made(wildcards.collection, wildcards.shard)


def simulated_shards(collection):
    """Return the folders of a collection's simulated files where it is simulated."""
    if "simulate" not in COLLECTIONS[collection]:
        return []
    return [simulated_folder(collection, shard) for shard in SHARDS[collection]]


def truth(collection):
    """Return the tables of a collection's true cells and the pattern of their masks; empty and None without truth."""
    if "simulate" in COLLECTIONS[collection]:
        return {
            "cells": [f"{folder}/cells.csv" for folder in simulated_shards(collection)],
            "masks": f"{simulated_folder(collection, '{shard}')}/{{id}}_cellmask.png",
        }
    found = COLLECTIONS[collection].get("truth")
    if found is None:
        return {"cells": [], "masks": None}
    root = COLLECTIONS[collection]["root"]
    return {
        "cells": [found["cells"].replace("{root}", root)],
        "masks": found["masks"].replace("{root}", root),
    }


def truth_files(collection):
    """Return what must be there before a collection's truth can be read."""
    if "simulate" in COLLECTIONS[collection]:
        return simulated_shards(collection)
    cells = truth(collection)["cells"]
    return [*cells, f"results/sheet/{collection}/truth.csv"] if cells else []


def explore_outputs():
    """Return the figures of the data."""
    return expand("results/figures/{name}.{suffix}", name=EXPLORE_FIGURES, suffix=["svg", "png"])


def model_outputs(wildcards):
    """Return the curves of the training where the model is trained here."""
    if config["model"]["path"]:
        return []
    return expand("results/figures/{name}.{suffix}", name=TRAINING_FIGURES, suffix=["svg", "png"])


def to_curate(collection):
    """Return the input function of the curation of a collection.

    Whether the configuration is fit for training is checked here and not before, since figures of the data or
    predictions need nothing to train on.
    """

    def inputs(wildcards):
        check_training(config)
        return {
            "cells": of_shards("results/cells/{collection}/{shard}.parquet", collection),
            "fields": of_shards("results/cells/{collection}/{shard}.fields.parquet", collection),
            "truth": truth_files(collection) if TRUE_LABELS else [],
        }

    return inputs


def tiles_of(collection):
    """Return the input function of the tiles of a collection, colour by colour within each shard."""

    def inputs(wildcards):
        check_training(config)
        return expand(
            "results/tiles/{collection}/{shard}/{colour}.tfrecord",
            collection=collection,
            shard=SHARDS[collection],
            colour=COLOURS,
        )

    return inputs


def model_files(wildcards):
    """Return the files of the model that predicts: the one named by model.path, or the one trained here."""
    if config["model"]["path"]:
        check_model(config)
    return [f"{MODEL}/{name}" for name in MODEL_FILES]


def model_version(wildcards):
    """Return the digest of the checksums of the model named by model.path; None for one that is trained here.

    By their times alone a folder in the place of a newer one, as a link to another model can be, would pass for it.
    """
    path = config["model"]["path"] and Path(config["model"]["path"], "checksums.json")
    return digest(path) if path and path.is_file() else None


def used_collections(wildcards):
    """Return the names of the collections that this run trains on or predicts."""
    return list(dict.fromkeys([*PREDICTED, *([] if config["model"]["path"] else training_collections(config))]))


def predict_outputs(wildcards):
    """Return the final files of the collections to predict, and their scores, which say where there are none, and why."""
    names = ["cells.parquet", "fields.parquet", "submission.csv", "cells.h5ad"]
    files = expand("results/predictions/{collection}/{name}", collection=PREDICTED, name=names)
    return [*files, "results/sheet/rejected.csv", SUMMARY, "results/browser/index.html", METRICS]


def predict_only_outputs(wildcards):
    """Return the final files of a prediction once it is known that there is a model to predict with."""
    check_model(config)
    return [*predict_outputs(wildcards), "results/report.zip"]


def study_files(collection):
    """Return the files of a studied collection, each list in the order of its shards; tiles by colour."""
    return {
        "manifests": of_shards("results/sheet/{collection}/{shard}.csv", collection),
        "cells": of_shards("results/cells/{collection}/{shard}.parquet", collection),
        "fields": of_shards("results/cells/{collection}/{shard}.fields.parquet", collection),
        "segmentation": of_shards("results/segmentation/{collection}/{shard}", collection),
        "tiles": {
            colour: of_shards(f"results/tiles/{{collection}}/{{shard}}/{colour}.tfrecord", collection)
            for colour in COLOURS
        },
        "shards": SHARDS.get(collection, []),
        "simulated": simulated_shards(collection) if collection in COLLECTIONS else [],
    }


def of_study(*kinds):
    """Return the input function of the files of these kinds of all studied collections."""

    def inputs(wildcards):
        check_interpretation(config)
        found = []
        for name in STUDIED:
            files = study_files(name)
            for kind in kinds:
                if kind == "tiles":
                    found += [path for of_colour in files[kind].values() for path in of_colour]
                else:
                    found += files[kind]
        return found

    return inputs


def to_study(wildcards):
    """Return the tables from which the cells to study are chosen."""
    check_interpretation(config)
    return {
        "files": of_study("cells", "fields")(wildcards),
        "truth": [path for name in SCORED for path in truth_files(name)],
        "examples": [] if config["model"]["path"] else ["results/dataset/examples.parquet"],
    }


def mixture_files(wildcards):
    """Return the pooled calls and the known fractions of the mixed fields, where there are such."""
    mixtures = config["interpretation"]["mixtures"]
    if not mixtures:
        return []
    check_interpretation(config)
    name = mixtures["collection"]
    table = mixtures["table"].replace("{root}", COLLECTIONS[name]["root"])
    return [f"results/predictions/{name}/fields.parquet", table]


def few_shot_inputs(wildcards):
    """Return the labelled cells and the embeddings of the collection whose cells are to be labelled."""
    check_few_shot(config)
    return {
        "table": config["few_shot"]["table"],
        "predictions": of_shards("results/predictions/{collection}/shards/{shard}.parquet", FEW_SHOT),
    }
