"""What is needed before there is a configuration: the images to describe, and what jobs of all rules ask for."""

from hpaloc.describing.listing import DescriptionError, list_images

# What `--config images=` names; None if no images are to be described. In a file, the key images belongs to a collection.
DESCRIBED = (workflow.config_settings.config if MAIN else config).get("images")
DESCRIBED = None if DESCRIBED is None else str(DESCRIBED)


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


def grows(megabytes, factor=2):
    """Return a resource function: ``megabytes``, multiplied by ``factor`` at each further attempt."""

    def of_attempt(wildcards, attempt):
        return megabytes * factor ** (attempt - 1)

    return of_attempt
