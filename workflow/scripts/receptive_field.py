"""Measure which part of a tile reaches one position of the network's last map."""

from pathlib import Path

from hpaloc.progress import log_to
from hpaloc.training import measure_receptive_fields


def main(job):
    measure_receptive_fields(
        Path(job.input.model[0]).parent, Path(job.input.part), Path(job.input.examples), Path(job.output[0])
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
