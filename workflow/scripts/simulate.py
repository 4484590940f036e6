"""Draw the fields of one shard of a simulated collection."""

from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to
from hpaloc.simulate.shard import simulate_shard


def main(job):
    with atomic_directory(job.output[0]) as folder:
        simulate_shard(read_manifest(job.input.manifest), folder, **job.params.simulate)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
