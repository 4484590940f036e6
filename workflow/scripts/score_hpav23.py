"""Score predicted crops as the benchmark HPAv23 does."""

import pandas as pd

from hpaloc.evaluation.hpav23 import score_tables, tabulate
from hpaloc.files import atomic_path, write_json
from hpaloc.progress import log_to


def main(job):
    tables = zip(job.params.collections, job.input.cells, job.input.fields, strict=True)
    scores = {name: score_tables(pd.read_parquet(cells), pd.read_parquet(fields)) for name, cells, fields in tables}
    with atomic_path(job.output.table) as temporary:
        tabulate(scores).to_csv(temporary, index=False, lineterminator="\n")
    write_json(job.output.scores, scores)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
