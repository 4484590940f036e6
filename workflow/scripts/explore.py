"""Draw the figures of the data."""

from pathlib import Path

from hpaloc.figures.data import draw_data
from hpaloc.manifests import read_manifests
from hpaloc.progress import log_to


def main(job):
    draw_data(read_manifests(job.input.manifests, job.input.annotations), Path(job.output[0]).parent)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
