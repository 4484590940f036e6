"""Change the split or the labels of the examples to those of a control."""

import numpy as np
import pandas as pd

from hpaloc.controls import control_examples
from hpaloc.examples import EXAMPLES, place
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def main(job):
    examples = pd.read_parquet(job.input[0])
    changed = control_examples(examples, job.wildcards.control, job.params.fraction, job.params.seed)
    write_table(job.output[0], to_table(place(changed, np.random.default_rng(job.params.seed)), EXAMPLES))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
