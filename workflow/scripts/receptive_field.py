"""Measure which part of a tile affects one position of the network's last map."""

from pathlib import Path

from hpaloc.network.receptive_field import measure_receptive_fields
from hpaloc.progress import log_to


def main(job):
    measure_receptive_fields(
        Path(job.input.model[0]).parent, Path(job.input.part), Path(job.input.examples), Path(job.output[0])
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
