"""Add to the model folder what trained the network."""

from pathlib import Path

from hpaloc.progress import log_to
from hpaloc.seen.record import add_seen


def main(job):
    add_seen(Path(job.output[0]).parent, Path(job.input.seen))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
