"""Write the model card."""

from pathlib import Path

from hpaloc.model_card import write_card
from hpaloc.progress import log_to


def main(job):
    write_card(Path(job.input.model[0]).parent, Path(job.input.examples), Path(job.output[0]))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
