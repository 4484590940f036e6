"""Draw the learning rate, loss, accuracy and AUC over the epochs, and the receptive field."""

from pathlib import Path

from hpaloc.figures.training import draw_training
from hpaloc.progress import log_to


def main(job):
    draw_training(Path(job.input.history), Path(job.input.receptive_field), Path(job.output[0]).parent)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
