"""Remove all examples of the held-out classes."""

import numpy as np
import pandas as pd

from hpaloc.examples import EXAMPLES, place, without_classes
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def main(job):
    kept = without_classes(pd.read_parquet(job.input[0]), job.params.held_out)
    write_table(job.output[0], to_table(place(kept, np.random.default_rng(job.params.seed)), EXAMPLES))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
