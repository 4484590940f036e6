"""Import the planes of one shard from files that hpaloc does not read itself."""

from hpaloc.files import atomic_directory
from hpaloc.importing import import_shard
from hpaloc.progress import log_to


def main(job):
    with atomic_directory(job.output[0]) as folder:
        import_shard(
            job.input.manifest,
            folder,
            memory_mb=job.resources.mem_mb,
            max_rejected_fraction=job.config["max_rejected_fraction"],
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
