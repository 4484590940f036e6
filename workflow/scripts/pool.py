"""Pool the calls of a collection's cells by columns of its sheet."""

from pathlib import Path

from hpaloc.column_pooling import pool_by_columns
from hpaloc.layout import CollectionFiles
from hpaloc.mixtures.fractions import read_prototypes
from hpaloc.progress import log_to


def main(job):
    files = CollectionFiles(job.wildcards.collection)
    # As in aggregate.
    mixtures = bool(job.config["model"]["path"] or job.input.reading)
    fused = bool(job.config["model"]["path"] or job.input.fusion)
    prototypes = read_prototypes(Path(job.params.model), mixtures, fused) or ()
    pool_by_columns(files, job.params.columns, job.output[0], *prototypes)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
