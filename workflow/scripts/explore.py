"""Draw the figures of the data."""

from pathlib import Path

from hpaloc.figures import explore
from hpaloc.progress import log_to
from hpaloc.sheet import read_manifests


def main(job):
    explore(read_manifests(job.input.manifests), Path(job.output[0]).parent)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
