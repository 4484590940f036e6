"""Draw the learning rate, loss, accuracy and AUC over the epochs."""

from pathlib import Path

from hpaloc.figures import training
from hpaloc.progress import log_to


def main(job):
    training(Path(job.input[0]), Path(job.output[0]).parent)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
