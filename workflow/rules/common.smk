"""What every stage shares: the checked configuration, the scan of sheets and folders, and the manifests.

The scan happens once, in the process a person starts. Jobs find the manifests and scan nothing.
"""

import os
import sys
import time
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from hpaloc.accounting import summary_lines
from hpaloc.classes import COLOURS
from hpaloc.config import ConfigError, complete, read_command_line, shortened, training_collections
from hpaloc.delimited import SheetError
from hpaloc.files import digest
from hpaloc.finding import annotations_name, shards_of
from hpaloc.planning import (
    MODEL_FILES,
    READING_FILES,
    check_few_shot,
    check_held_out,
    check_interpretation,
    check_model,
    check_rows,
    check_segmentation,
    check_training,
    known_mixtures,
)
from hpaloc.left_over import left_over_lines, unconfigured
from hpaloc.scan import (
    downloaded_folder,
    restore_tables,
    scan_collection,
    simulated_folder,
    write_scan,
)
from hpaloc.version import files_version, room_version

STARTED = time.time()
SUMMARY = "results/sheet/summary.csv"
METRICS = "results/evaluation/metrics.json"
LEFT_OVER = "results/run/left_over.csv"
# The rows of each collection's sheet, and what the tables that planning replaced held before; both empty in a job.
ROWS = {}
REPLACED = {}


def refuse(error):
    """End this process with one sentence, and with the tables that it replaced as they were before.

    No exception would do: Snakemake drops one that an input function raises where the outputs of its job exist, and a
    setting that a fresh folder refuses would go through in a finished one.
    """
    restore_tables(REPLACED)
    logger.error(str(error))
    sys.exit(1)


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
    config = complete(read_command_line(config, workflow.config_settings.config))
    COLLECTIONS = config["collections"]
    # Jobs read the manifests that the driver wrote; and while a run is under way, a second process leaves them alone.
    if workflow.is_main_process and not under_way():
        # Every collection is read before the first manifest is written: a wrong sheet leaves those of the others alone.
        scans = {name: scan_collection(name, config) for name in COLLECTIONS}
        SHARDS = {name: write_scan(scan, f"results/sheet/{name}", REPLACED) for name, scan in scans.items()}
        ROWS = {name: scan.rows for name, scan in scans.items()}
        del scans
    else:
        SHARDS = {name: shards_of(f"results/sheet/{name}") for name in COLLECTIONS}
except (ConfigError, SheetError) as error:
    refuse(error)
except OSError as error:
    refuse(f"{error.filename}: cannot be written or read ({error.strerror})")


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
    # A reading that an earlier run learnt would go on to be read from the model folder, and from copies of it.
    for name in READING_FILES if not (config["model"]["path"] or config["train"]["blends"]) else ():
        Path(MODEL, name).unlink(missing_ok=True)


TRAINING = config["train"]["collection"]
PRETRAINING = None if config["model"]["path"] else config["train"]["pretraining"]
CONTROLS = [] if config["model"]["path"] else config["evaluation"]["controls"]
# What changes the weights of the network; where it runs does not.
TRAIN_SETTINGS = {key: value for key, value in config["train"].items() if key not in ("gpu", "pretraining", "blends")}
FINAL_SETTINGS = {
    **TRAIN_SETTINGS,
    **({"weights": "results/pretraining/model/model.keras"} if PRETRAINING else {}),
}
# The file that a training starts from, where it is named, with what it is read with; see content_of.
WEIGHTS = [] if config["train"]["weights"] in ("none", "imagenet") else [config["train"]["weights"]]
if WEIGHTS and Path(WEIGHTS[0]).suffix == ".keras":
    WEIGHTS += [str(Path(WEIGHTS[0]).with_name(name)) for name in MODEL_FILES if name != "model.keras"]
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


def annotations_of(collection):
    """Return the annotations of a collection's shards: what its sheet says of each field beside its files."""
    return [f"results/sheet/{collection}/{annotations_name(shard)}" for shard in SHARDS[collection]]


@cache
def content_of(*paths):
    """Return the digests of files that people name, a parameter of the rules that read them.

    They are no inputs: of an input Snakemake compares the time, also of an `ancient` one when the job has ended, and
    takes a job for failed, with all that it made, whose input is dated in the future. And an older file in the place of
    a newer one would pass for it.
    """
    return [digest(path) if Path(path).is_file() else None for path in paths]


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


def to_segment(wildcards):
    """Return what must be there before a shard can be segmented."""
    require_segmentation()
    return made_images(wildcards)


def simulated_shards(collection):
    """Return the folders of a collection's simulated files where it is simulated."""
    if "simulate" not in COLLECTIONS[collection]:
        return []
    return [simulated_folder(collection, shard) for shard in SHARDS[collection]]


def truth(collection):
    """Return what is known of a collection's true cells: tables, their content, pattern of their masks, planned states.

    Content and states are those of files that people name; None where the run makes them or there is no truth.
    """
    if "simulate" in COLLECTIONS[collection]:
        return {
            "cells": [f"{folder}/cells.csv" for folder in simulated_shards(collection)],
            "content": None,
            "masks": f"{simulated_folder(collection, '{shard}')}/{{id}}_cellmask.png",
            "planned": None,
        }
    found = COLLECTIONS[collection].get("truth")
    if found is None:
        return {"cells": [], "content": None, "masks": None, "planned": None}
    root = COLLECTIONS[collection]["root"]
    cells = found["cells"].replace("{root}", root)
    return {
        "cells": [cells],
        "content": content_of(cells),
        "masks": found["masks"].replace("{root}", root),
        "planned": f"results/sheet/{collection}/truth.csv",
    }


def truth_files(collection):
    """Return what must be there before a collection's truth can be read; its tables are in the parameters, by content."""
    if "simulate" in COLLECTIONS[collection]:
        return simulated_shards(collection)
    return [f"results/sheet/{collection}/truth.csv"] if "truth" in COLLECTIONS[collection] else []


def explore_outputs():
    """Return the figures of the data."""
    return expand("results/figures/{name}.{suffix}", name=EXPLORE_FIGURES, suffix=["svg", "png"])


def model_outputs(wildcards):
    """Return the card of the model and the curves of its training where it is trained here."""
    if config["model"]["path"]:
        return []
    return ["results/model/card.md"] + expand(
        "results/figures/{name}.{suffix}", name=TRAINING_FIGURES, suffix=["svg", "png"]
    )


# What a target needs is checked when a job of it is planned and not before, since figures of the data need nothing to
# train on. Each is checked once.


@cache
def require_training():
    """Refuse the configuration unless there is something to train on."""
    try:
        check_training(config)
        for name in training_collections(config) if ROWS else ():
            check_rows(name, ROWS[name], config)
    except ConfigError as error:
        refuse(error)


@cache
def require_model():
    """Refuse the configuration unless there is a model to predict with, or one can be trained."""
    if not config["model"]["path"]:
        return require_training()
    try:
        check_model(config)
    except ConfigError as error:
        refuse(error)


@cache
def require_interpretation():
    """Refuse the configuration unless there is a model to interpret, and cells to do it on."""
    require_model()
    try:
        check_interpretation(config, ROWS)
        if ROWS:
            check_held_out({name: ROWS[name] for name in STUDIED}, config)
    except (ConfigError, SheetError) as error:
        refuse(error)


@cache
def require_segmentation():
    """Refuse the configuration unless the weights that it names for the segmentation are there."""
    try:
        check_segmentation(config)
    except (ConfigError, SheetError) as error:
        refuse(error)


@cache
def require_few_shot():
    """Refuse the configuration unless there are cells that a person labelled."""
    require_model()
    try:
        check_few_shot(config, ROWS)
    except (ConfigError, SheetError) as error:
        refuse(error)


def to_curate(collection):
    """Return the input function of the curation of a collection."""

    def inputs(wildcards):
        require_training()
        return {
            "cells": of_shards("results/cells/{collection}/{shard}.parquet", collection),
            "fields": of_shards("results/cells/{collection}/{shard}.fields.parquet", collection),
            "annotations": annotations_of(collection),
            "truth": truth_files(collection) if TRUE_LABELS else [],
        }

    return inputs


def tiles_of(collection):
    """Return the input function of the tiles of a collection, colour by colour within each shard."""

    def inputs(wildcards):
        require_training()
        return expand(
            "results/tiles/{collection}/{shard}/{colour}.tfrecord",
            collection=collection,
            shard=SHARDS[collection],
            colour=COLOURS,
        )

    return inputs


def trained_here(*names, folder=MODEL):
    """Return files of a model folder where this run trains it, none of a model that model.path names."""
    return [] if config["model"]["path"] else [f"{folder}/{name}" for name in names]


def model_files(wildcards):
    """Return the files of the model that predicts where it is trained here; that of model.path is checked alone."""
    require_model()
    return trained_here(*MODEL_FILES)


def reading_files(wildcards):
    """Return the files of the reading of mixtures where the model is trained here, and reads them."""
    return trained_here(*READING_FILES) if config["train"]["blends"] else []


def model_version(wildcards):
    """Return the digest of the model named by model.path; None for one that is trained here."""
    if not config["model"]["path"]:
        return None
    return content_of(*(path for name in (*MODEL_FILES, *READING_FILES) if os.path.isfile(path := f"{MODEL}/{name}")))


def used_collections(wildcards):
    """Return the names of the collections that this run trains on or predicts."""
    return list(dict.fromkeys([*PREDICTED, *([] if config["model"]["path"] else training_collections(config))]))


def predict_outputs(wildcards):
    """Return the final files of the collections to predict, and their scores, which say where there are none, and why."""
    require_model()
    names = ["cells.parquet", "fields.parquet", "submission.csv", "cells.h5ad"]
    files = expand("results/predictions/{collection}/{name}", collection=PREDICTED, name=names)
    files += ["results/sheet/rejected.csv", SUMMARY, "results/browser/index.html", METRICS]
    return files + expand(
        "results/evaluation/{collection}/{name}.{suffix}",
        collection=SCORED,
        name=EVALUATION_FIGURES,
        suffix=["svg", "png"],
    )


def predict_only_outputs(wildcards):
    """Return the final files of a prediction once it is known that there is a model to predict with."""
    if not config["model"]["path"]:
        refuse(ConfigError("config key model.path: predict_only needs the folder of a trained model"))
    return [*predict_outputs(wildcards), "results/report.zip"]


def study_files(collection):
    """Return the files of a studied collection, each list in the order of its shards; tiles by colour."""
    return {
        "manifests": of_shards("results/sheet/{collection}/{shard}.csv", collection),
        "cells": of_shards("results/cells/{collection}/{shard}.parquet", collection),
        "fields": of_shards("results/cells/{collection}/{shard}.fields.parquet", collection),
        "annotations": annotations_of(collection),
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
        require_interpretation()
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
    require_interpretation()
    return {
        "files": of_study("cells", "fields", "annotations")(wildcards),
        "truth": [path for name in SCORED for path in truth_files(name)],
        "examples": [] if config["model"]["path"] else ["results/dataset/examples.parquet"],
    }


def mixture_files(wildcards):
    """Return the pooled calls of the mixed fields, where there are such."""
    mixtures = config["interpretation"]["mixtures"]
    if not mixtures:
        return []
    require_interpretation()
    return [f"results/predictions/{mixtures['collection']}/fields.parquet"]


def mixture_table(wildcards):
    """Return the path and the content of the known fractions of the mixed fields; None without."""
    mixtures = config["interpretation"]["mixtures"]
    if not mixtures:
        return None
    table = known_mixtures(config)
    return {"table": table, "content": content_of(table)}


def few_shot_inputs(wildcards):
    """Return the labelled cells and the embeddings of the collection whose cells are to be labelled."""
    require_few_shot()
    return {
        "predictions": of_shards("results/predictions/{collection}/shards/{shard}.parquet", FEW_SHOT),
    }
