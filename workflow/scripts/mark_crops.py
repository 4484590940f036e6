"""Mark the cells of the ready-made crops of one shard."""

from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to
from hpaloc.segmentation.crops import mark_crops


def main(job):
    with atomic_directory(job.output[0]) as folder:
        mark_crops(
            read_manifest(job.input.manifest),
            folder,
            max_rejected_fraction=job.config["max_rejected_fraction"],
            threads=job.threads,
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
