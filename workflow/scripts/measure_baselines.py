"""Measure the cells of one shard for the baselines."""

from pathlib import Path

from hpaloc.baselines.measures import measure_shard
from hpaloc.classes import COLOURS
from hpaloc.progress import log_to


def main(job):
    measure_shard(
        Path(job.input.cells),
        Path(job.input.fields),
        Path(job.input.segmentation),
        dict(zip(COLOURS, job.input.tiles, strict=True)),
        Path(job.output[0]),
        **job.params.tiles_of_model,
        batch_size=job.config["predict"]["batch_size"],
        gpu=job.config["train"]["gpu"],
        threads=job.threads,
        enlarge=job.params.enlarge,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
