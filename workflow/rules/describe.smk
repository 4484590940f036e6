"""The description of a folder of images, before there is a configuration for it.

Inputs: the folder, file or pattern that `--config images=` names.
Outputs: a configuration with what was found as comments, which is also printed, and a contact sheet. The rule declares
no outputs and no benchmark, so it describes the folder each time that it is asked for.
Steps: sort the names, look into a few files, guess the colours, draw.
"""

from hpaloc.describing.listing import DescriptionError, list_images

# What the key images at the first level names; None if no images are to be described.
DESCRIBED = None if config.get("images") is None else str(config["images"])


def check_described(wildcards):
    """Refuse the target describe unless --config names images."""
    if DESCRIBED is None:
        refuse(
            "describe: name a folder, a file or a pattern of images, such as snakemake describe --config images=data/new"
        )
    return []


if DESCRIBED is not None and workflow.is_main_process:
    try:
        list_images(DESCRIBED)
    except DescriptionError as error:
        # `refuse` of common.smk comes with the scan of the collections.
        logger.error(str(error))
        sys.exit(1)


localrules:
    describe,


rule describe:
    """Look at a folder of images, and print a configuration for it."""
    default_target: MAIN and DESCRIBED is not None
    input:
        check_described,
    log:
        "results/description/describe.log",
    conda:
        "../../envs/segmentation.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        images=DESCRIBED,
        folder="results/description",
    script:
        "../scripts/describe.py"


# Another workflow calls the handler of this one; that of sheet.smk takes its place where there is a run to tell of.
onsuccess:
    pass
