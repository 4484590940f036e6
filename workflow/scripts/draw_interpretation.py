"""Draw what the network learned."""

from pathlib import Path

from hpaloc.figures.interpretation import draw_interpretation
from hpaloc.progress import log_to


def main(job):
    folder = Path(job.output[0]).parent
    draw_interpretation(folder, Path(job.input.network), folder)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
