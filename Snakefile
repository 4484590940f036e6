"""hpaloc: the subcellular location of a stained protein in every cell of Human Protein Atlas style images."""

from snakemake.utils import min_version

min_version("9.9")


# A configuration given on the command line stands alone: merged with the demo's it would keep the demo's collections.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/tile.smk"
include: "workflow/rules/sheet.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/submit.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/explore.smk"
include: "workflow/rules/browse.smk"
include: "workflow/rules/interpret.smk"
include: "workflow/rules/report.smk"


# With a model of one's own nothing is ever trained, even where the data would call for it.
if not config["model"]["path"]:

    include: "workflow/rules/curate.smk"
    include: "workflow/rules/records.smk"
    include: "workflow/rules/train.smk"


rule all:
    """Train (unless model.path names a model), predict, evaluate, and draw the figures of the data."""
    default_target: True
    input:
        explore_outputs(),
        predict_outputs,
        "results/report.zip",


rule predict_only:
    """Apply the model named by model.path to the collections to predict; nothing is trained."""
    input:
        predict_only_outputs,


rule explore:
    """Draw the figures of the data from sheets and images alone."""
    input:
        explore_outputs(),


rule interpret:
    """Say what the network learned, and judge the claims of the method."""
    input:
        rules.judge_claims.output,
        rules.draw_interpretation.output,
