"""Draw the scores of the labelled collections."""

from pathlib import Path

from hpaloc.figures.scores import draw_scores
from hpaloc.progress import log_to


def main(job):
    folder = Path(job.input[0]).parent
    draw_scores(folder, folder)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
