"""Choose and label the cells that train and validate the model."""

import pandas as pd

from hpaloc.curation import curate, examples_table, match_truth, summary_text
from hpaloc.files import atomic_path
from hpaloc.progress import log_to
from hpaloc.tables import read_cells, read_fields, write_table


def read_truth(job, cells, fields):
    """Return the truth of the pipeline's cells, or None where the field's labels are to be inherited."""
    if job.params.truth is None:
        return None
    truth = pd.concat(
        [pd.read_csv(path, dtype=str, keep_default_na=False) for path in job.params.truth["cells"]], ignore_index=True
    )
    shards = dict(zip(fields["field"], fields["shard"], strict=True))
    masks = {
        field: job.params.truth["masks"].format(id=field, shard=job.params.shards[shards[field]])
        for field in truth["ID"].unique()
        if field in shards
    }
    return match_truth(cells, truth, masks)


def main(job):
    cells = read_cells(job.input.cells)
    fields = read_fields(job.input.fields)
    truth = read_truth(job, cells, fields)
    examples, summary, rejected = curate(cells, fields, job.params.curation, job.params.seed, truth)
    write_table(job.output.examples, examples_table(examples))
    with atomic_path(job.output.summary) as temporary:
        temporary.write_text(summary_text(summary), encoding="utf-8")
    with atomic_path(job.output.rejected) as temporary:
        rejected.to_parquet(temporary, index=False)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
