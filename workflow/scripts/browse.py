"""Join the predicted collections into one cell browser."""

from pathlib import Path

from hpaloc.browser.page import write_page
from hpaloc.layout import CollectionFiles
from hpaloc.progress import log_to


def main(job):
    collections = [CollectionFiles(**known) for known in job.params.collections]
    write_page(Path(job.output[0]).parent, collections, job.params.true_cells, seed=job.params.seed)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
