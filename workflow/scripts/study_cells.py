"""Choose the labelled cells to study, preferring those that did not train the network."""

from pathlib import Path

import pandas as pd

from hpaloc.interpretation.cells import Source, choose_cells
from hpaloc.interpretation.studied import STUDIED
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.matching import read_true_labels
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def read_source(job, files):
    """Return the cells of one collection with their labels."""
    annotations = files.of_shards("annotations")
    cells = read_cells(files.of_shards("cells"), annotations)
    fields = read_fields(files.of_shards("fields"), annotations)
    if files.name == job.params.training and job.input.examples:
        return Source(files.name, cells, fields, examples=pd.read_parquet(job.input.examples))
    truth = read_true_labels(cells, fields, files) if files.true_cells else None
    left_out = [path for path in job.input.left_out if Path(path).parent.name == files.name]
    return Source(files.name, cells, fields, truth=truth, left_out=pd.read_parquet(left_out[0]) if left_out else None)


def main(job):
    sources = [read_source(job, CollectionFiles(**known)) for known in job.params.collections]
    cells = choose_cells(sources, job.params.cells, job.params.held_out, job.params.seed)
    write_table(job.output[0], to_table(cells, STUDIED))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
