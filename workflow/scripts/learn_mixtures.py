"""Learn to read mixtures of locations from blends of training cells."""

from pathlib import Path

from hpaloc.mixtures.learning import learn_mixtures
from hpaloc.progress import log_to


def main(job):
    learn_mixtures(
        Path(job.input.model[0]).parent,
        Path(job.input.part),
        Path(job.input.examples),
        job.params.blends,
        job.params.seed,
        batch_size=job.params.batch_size,
        precision=job.params.precision,
        gpu=job.config["train"]["gpu"],
        threads=job.threads,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
