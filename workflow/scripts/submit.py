"""Write a collection's predictions in the form of the 2021 competition."""

from pathlib import Path

from hpaloc.pooling import gather_shards, write_submission
from hpaloc.progress import log_to


def main(job):
    shards = gather_shards(job.input.predictions, job.input.cells, job.input.fields)
    write_submission(shards, Path(job.output[0]))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
