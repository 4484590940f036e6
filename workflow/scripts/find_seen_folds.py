"""Find what the network of each fold has seen of the fields that it predicts."""

from pathlib import Path

import pandas as pd

from hpaloc.fold_table import read_folds
from hpaloc.layout import CollectionFiles
from hpaloc.progress import log, log_to
from hpaloc.seen.finding import LEFT_OUT, note_seen, read_collection
from hpaloc.seen.folds import find_seen_by_folds, keep_criteria
from hpaloc.seen.record import load_seen
from hpaloc.tables import to_table, write_table


def main(job):
    group_by = job.params.group_by
    *first, tables = [
        keep_criteria(*read_collection(CollectionFiles(**known)), group_by) for known in job.params.collections
    ]
    before = [note_seen(*first[0], pd.read_parquet(path), group_by) for path in job.input.pretraining]
    if job.params.start and (start := load_seen(Path(job.params.start))):
        before.append(start)
    examples = [pd.read_parquet(path) for path in job.input.examples]
    found = find_seen_by_folds(tables, read_folds(job.input.folds), examples, before, group_by, job.threads)
    log.info("seen by the network that predicts them: %s", found["kind"].value_counts().to_dict() or "nothing")
    write_table(job.output[0], to_table(found, LEFT_OUT))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
