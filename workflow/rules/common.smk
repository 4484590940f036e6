"""Code that all files of rules share: the checked configuration, the scan of sheets and folders, and the manifests.

The scan happens once, in the process that the user starts. Jobs read the manifests and do not scan.
"""

import os
import sys
import time
import traceback
from functools import cache, wraps
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from hpaloc.accounting import baseline_lines, hpav23_lines, left_out_lines, summary_lines
from hpaloc.classes import COLOURS
from hpaloc.config import (
    ATLAS_FOLDER,
    colours_of,
    complete,
    curation_of,
    describe_training_images,
    has_crop_table,
    read_command_line,
    shortened,
    training_collections,
    training_settings,
)
from hpaloc.files import digest, spelled_as_on_disk
from hpaloc.finding import shards_of
from hpaloc.layout import PATTERNS
from hpaloc.planning.fields import check_folds, check_pooling, check_rows, check_studied, check_unseen
from hpaloc.planning.settings import (
    BASELINE_FILES,
    FUSION_FILES,
    MODEL_FILES,
    NO_MODEL,
    READING_FILES,
    SEEN_FILES,
    check_few_shot,
    check_interpretation,
    check_model,
    check_packing,
    check_places,
    check_segmentation,
    check_training,
    known_mixtures,
    spell_paths,
)
from hpaloc.left_over import left_over_lines, other_settings, outdated, unconfigured
from hpaloc.network.folder import read_settings
from hpaloc.scan import plan_collections, restore_tables
from hpaloc.unpacking import model_folder
from hpaloc.version import files_version, room_version

STARTED = time.time()
SUMMARY = "results/sheet/summary.csv"
WARNED = "results/sheet/warnings.csv"
METRICS = "results/evaluation/metrics.json"
COMPARED = "results/evaluation/baselines.csv"
LEFT_OUT_OF_SCORES = "results/evaluation/left_out.csv"
HPAV23_SCORES = "results/evaluation/hpav23.json"
HPAV23_TABLE = "results/evaluation/hpav23.csv"
LEFT_OVER = "results/run/left_over.csv"
# The scan of each collection; empty in a job.
SCANS = {}


def refuse(error):
    """End this process with one sentence, and restore the tables that it replaced.

    An exception would not work: Snakemake ignores an exception of an input function if the outputs of its job exist, so
    a finished folder would accept a setting that a fresh folder refuses.
    """
    if isinstance(error, OSError):
        # The error of a full disk does not name the file.
        error = f"{error.filename or Path.cwd()}: cannot be read or written ({error.strerror or error})"
    elif not isinstance(error, str) and not type(error).__module__.startswith("hpaloc."):
        traceback.print_exception(error)
    logger.error(str(error))
    try:
        restore_tables()
    except OSError as failed:
        logger.error(
            f"{failed.filename or 'results/sheet'}: the table before this plan cannot be restored ({failed.strerror})"
        )
    sys.exit(1)


def refusing(check):
    """Return ``check``, made once for the same arguments; any error of it ends this process, see ``refuse``."""

    @cache
    @wraps(check)
    def checked(*arguments):
        try:
            return check(*arguments)
        except Exception as error:
            refuse(error)

    return checked


def under_way():
    """Return whether a run holds the lock of this working directory and has written its manifests."""
    if not any(Path(".snakemake/locks").glob("*")):
        return False
    # The report of a run is made by another Snakemake inside that run.
    if workflow.is_main_process and "HPALOC_REPORT_OF_RUN" not in os.environ:
        sentence = (
            "another run works in this folder, or one was killed here; if none does, `snakemake --unlock` frees it"
        )
        print(sentence, file=sys.stderr)
    return Path("results/sheet").is_dir()


try:
    config = complete(read_command_line(config, workflow.config_settings.config, module=not MAIN))
    spell_paths(config)
    check_places(config)
    COLLECTIONS = config["collections"]
    MODEL = model_folder(config["model"]["path"] or "results/model", config["model"]["sha256"])
    # Jobs read the manifests that the driver wrote, and during a run a second process does not change them.
    if workflow.is_main_process and not under_way():
        if any("atlas" in collection for collection in COLLECTIONS.values()):
            # Every job reads these lines, and loading what downloads would make each start slower.
            from hpaloc.atlas_planning import plan_atlas

            plan_atlas(config, logger.info)
        SCANS = plan_collections(config)
    SHARDS = {name: shards_of(f"results/sheet/{name}") for name in COLLECTIONS}
except Exception as error:
    refuse(error)


def manifest_states():
    """Return the size and time of every manifest."""
    stats = {str(path): path.stat() for path in Path("results/sheet").glob("*/*.csv")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


PLANNED_MANIFESTS = manifest_states()


onstart:
    # From here on this run holds the lock, and a second process does not change the manifests. Before, it could.
    if manifest_states() != PLANNED_MANIFESTS:
        raise WorkflowError(
            "results/sheet was changed by another snakemake with other settings after this run was planned; start it again"
        )


TRAINING = config["train"]["collection"]
PRETRAINING = None if config["model"]["path"] else config["train"]["pretraining"]
# The folder of the cross-validation, and its folds.
CROSS_VALIDATION = "results/cross_validation"
FOLDS = [] if config["model"]["path"] else range(1, config["evaluation"]["folds"] + 1)
CONTROLS = [] if config["model"]["path"] else config["evaluation"]["controls"]
TRAIN_SETTINGS = training_settings(config)
# Those of a first training, and of the training itself.
FIRST_SETTINGS = TRAIN_SETTINGS | {key: value for key, value in (PRETRAINING or {}).items() if key != "curation"}
FINAL_SETTINGS = {
    **TRAIN_SETTINGS,
    **({"weights": "results/pretraining/model/model.keras"} if PRETRAINING else {}),
}
# The file that the training starts from, if one is named, with the files needed to read it; see content_of.
WEIGHTS = [] if config["train"]["weights"] in ("none", "imagenet") else [config["train"]["weights"]]
if WEIGHTS and Path(WEIGHTS[0]).suffix == ".keras":
    WEIGHTS += [str(Path(WEIGHTS[0]).with_name(name)) for name in MODEL_FILES if name != "model.keras"]
# The model folder that the training starts from, if it starts from one.
START = str(Path(WEIGHTS[0]).parent) if len(WEIGHTS) > 1 else None
PREDICTED = config["predict"]["collections"]
# The tables of each predicted collection that are not always made.
POOLED = ["pooled.parquet"] if config["predict"]["pool_by"] else []
# A model is not scored on the cells it was trained on; history.csv and the model card have its validation scores.
SCORED = [
    name
    for name in PREDICTED
    if COLLECTIONS[name]["labels"] and (config["model"]["path"] or name not in training_collections(config))
]
# The collections that the benchmark HPAv23 scores: no other tables of crops have labels.
HPAV23 = [name for name in SCORED if has_crop_table(COLLECTIONS[name])]
# Whether it is known what trained the model, so that it can be left out of the scores.
# A packed model says it; it may not be unpacked yet.
CHECKED = MODEL != config["model"]["path"] or Path(MODEL, "seen.npz").is_file()
SEEN = [f"results/evaluation/{name}/seen.parquet" for name in SCORED if CHECKED]
# The figures of the data show the collection that trains or, if there is none, the first labelled one; with model.path
# they show a predicted collection.
EXPLORABLE = PREDICTED if config["model"]["path"] else [TRAINING, *COLLECTIONS]
LABELLED = [name for name in EXPLORABLE if COLLECTIONS.get(name, {}).get("labels")]
EXPLORED = [*LABELLED, *(name for name in EXPLORABLE if name in COLLECTIONS), *COLLECTIONS][0]
# The figures and their titles in the report.
EXPLORE_FIGURES = {"figure3_channels": "the channels of a field"}
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
# The files next to the collections in the folder of the cell browser; the page first.
BROWSER_FILES = ("index.html", "browser.js", "browser.css", "LICENCES.txt")
# The subjects of the study: labelled cells, preferably cells that did not train the network, and networks to compare.
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
# The collections of ready-made crops, which are not segmented.
CROPS = [name for name, collection in COLLECTIONS.items() if collection.get("crops")]
GIVEN_MASKS = config["segmentation"]["backend"] == "masks"
# The environment of the rule segment.
SEGMENTATION_ENVIRONMENT = {"hpacellseg": "hpacellseg", "instanseg": "torchscript"}.get(
    config["segmentation"]["backend"], "segmentation"
)
if SEGMENTATION_ENVIRONMENT == "hpacellseg" and config["segmentation"]["weights"]["format"] == "torchscript":
    SEGMENTATION_ENVIRONMENT = "torchscript"
# The package that writes each format of an export.
EXPORTERS = {
    "geojson": "geojson",
    "ome_zarr": "ome_zarr",
    "spatialdata": "spatialdata",
    "onnx": "tf2onnx",
    "crate": "rocrate",
}
# Jobs request a GPU unless the configuration excludes it; without a limit, a local run ignores the request.
GPU = {} if config["train"]["gpu"] == "none" else {"gpu": 1}
GPUS = GPU and {"gpu": config["train"]["gpus"]}


wildcard_constraints:
    collection="|".join(COLLECTIONS),
    shard=r"\d+",
    colour="|".join(COLOURS),


def one_of(names):
    """Return the constraint of a wildcard that is one of ``names``; without any, it matches nothing."""
    return "|".join(names) or "(?!)"


def code_of(*rooms):
    """Return the parameter function of the version of rooms of the library.

    It is a function because every job parses all rules: only the rooms of the rules that run are then read.
    """

    def version(wildcards):
        return room_version(*rooms)

    return version
