"""Measure CellProfiler's features of the studied cells."""

import pandas as pd

from hpaloc.interpretation.morphology import measure_collections
from hpaloc.interpretation.studied import chosen_cells
from hpaloc.layout import CollectionFiles
from hpaloc.progress import log_to
from hpaloc.tables import write_table


def main(job):
    cells = chosen_cells(pd.read_parquet(job.input.cells))
    collections = {name: CollectionFiles(name, shards) for name, shards in job.params.shards.items()}
    write_table(job.output[0], measure_collections(cells, collections, processes=job.threads))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
