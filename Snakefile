"""hpaloc: the subcellular location of a stained protein in every cell of Human Protein Atlas style images."""

import sys
from pathlib import Path

from snakemake.logging import logger
from snakemake.utils import min_version

min_version("9.9")

# The folder of this file; workflow.basedir differs from it if another workflow uses this one as a module.
HERE = Path(workflow.snakefile).parent


# A configuration given on the command line stands alone: merged with the demo's, it would keep the demo's collections.
# Images that are to be described need none, in any working folder.
if not workflow.overwrite_configfiles and "images" not in config:

    configfile: "config/config.yaml"


# Manifests and scripts name results/ themselves, and would not find files that a module statement moves.
moved = workflow.modifier.path_modifier
while moved is not None:
    if moved.prefix or moved.modifies_prefixes:
        # This ends the process with one sentence, like `refuse` of common.smk, which would first scan the collections.
        logger.error(
            "module statement: 'prefix' and 'replace_prefix' cannot move the files of hpaloc; leave them out and, for a "
            "folder of its own, set `workdir:` or start snakemake with --directory"
        )
        sys.exit(1)
    moved = moved.inner_modifier


# A workflow that uses this one as a module has its own default target, and may have its own report page.
MAIN = workflow.modifier.is_main_snakefile()
if MAIN:

    report: "workflow/report/workflow.rst"


# Images that are to be described have no configuration yet: nothing but their description is planned.
include: "workflow/rules/start.smk"
include: "workflow/rules/describe.smk"


if DESCRIBED is None:

    include: "workflow/rules/common.smk"

    # Used with `--sdm apptainer` only.
    if config["container"]:

        container: config["container"]

    include: "workflow/rules/inputs.smk"
    include: "workflow/rules/studies.smk"
    include: "workflow/rules/simulate.smk"
    include: "workflow/rules/atlas.smk"
    include: "workflow/rules/download.smk"
    include: "workflow/rules/import.smk"
    include: "workflow/rules/segment.smk"
    include: "workflow/rules/tile.smk"
    include: "workflow/rules/preview.smk"
    include: "workflow/rules/sheet.smk"
    include: "workflow/rules/predict.smk"
    include: "workflow/rules/aggregate.smk"
    include: "workflow/rules/submit.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/hpav23.smk"
    include: "workflow/rules/explore.smk"
    include: "workflow/rules/browse.smk"
    include: "workflow/rules/interpret.smk"
    include: "workflow/rules/this_run.smk"
    include: "workflow/rules/report.smk"
    include: "workflow/rules/pack.smk"
    include: "workflow/rules/export.smk"

    # With model.path nothing is ever trained, even if the data would require it.
    if not config["model"]["path"]:

        include: "workflow/rules/curate.smk"
        include: "workflow/rules/records.smk"
        include: "workflow/rules/train.smk"

    rule all:
        """Train (unless model.path names a model), predict, evaluate, and draw the figures of the data."""
        default_target: MAIN
        input:
            explore_outputs(),
            predict_outputs,
            "results/report.zip",

    rule predict_only:
        """Apply the model named by model.path to the collections to predict; nothing is trained."""
        input:
            predict_only_outputs,

    rule explore:
        """Draw the figures of the data, from sheets and images only."""
        input:
            explore_outputs(),

    rule atlas_sheet:
        """Write the sheets of the atlas and their counts, which planning does, and nothing else."""
        input:
            atlas_files,

    rule hpav23:
        """Predict the crops of the benchmark HPAv23, after training on its other crops, and score them as it does."""
        input:
            hpav23_scores,

    rule cross_validate:
        """Train and predict fold by fold, so that every cell of the training collection is predicted without its group."""
        input:
            cross_validate_outputs,

    rule export_geojson:
        """Write the cells of the predicted collections with their calls as GeoJSON, for QuPath and napari."""
        input:
            exported("geojson"),

    rule export_ome_zarr:
        """Write the fields of the collections to predict with their masks as OME-Zarr; no model is needed."""
        input:
            exported("ome_zarr"),

    rule export_spatialdata:
        """Write the fields of the predicted collections with their masks and called cells as SpatialData."""
        input:
            exported("spatialdata"),

    rule interpret:
        """Study what the network learned, and judge the claims of the method."""
        input:
            rules.judge_claims.output,
            rules.draw_interpretation.output,
