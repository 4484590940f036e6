"""Write a collection's predictions in the format of the 2021 competition."""

from pathlib import Path

from hpaloc.layout import CollectionFiles
from hpaloc.pooling import write_submission
from hpaloc.progress import log_to


def main(job):
    write_submission(CollectionFiles(job.wildcards.collection, job.params.shards), Path(job.output[0]))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
