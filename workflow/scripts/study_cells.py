"""Choose the labelled cells to study, those first that did not train the network."""

import pandas as pd

from hpaloc.interpretation.cells import Source, choose_cells
from hpaloc.interpretation.studied import STUDIED
from hpaloc.joining import read_cells, read_fields
from hpaloc.matching import TruthFiles, read_true_labels
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def read_source(job, collection):
    """Return the cells of one collection with what is known of their labels."""
    files, truth = job.params.files[collection], job.params.truth[collection]
    cells = read_cells(files["cells"], files["annotations"])
    fields = read_fields(files["fields"], files["annotations"])
    if collection == job.params.training and job.input.examples:
        return Source(collection, cells, fields, examples=pd.read_parquet(job.input.examples))
    known = None
    if truth["cells"]:
        true_files = TruthFiles(truth["cells"], truth["masks"], truth["planned"])
        known = read_true_labels(cells, fields, true_files, files["shards"])
    return Source(collection, cells, fields, truth=known)


def main(job):
    sources = [read_source(job, collection) for collection in job.params.files]
    cells = choose_cells(sources, job.params.cells, job.params.held_out, job.params.seed)
    write_table(job.output[0], to_table(cells, STUDIED))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
