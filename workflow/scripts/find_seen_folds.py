"""Find what the network of each fold has seen of the fields that it predicts."""

from pathlib import Path

import pandas as pd

from hpaloc.layout import CollectionFiles
from hpaloc.progress import log, log_to
from hpaloc.seen.finding import LEFT_OUT, find_seen, keep_criteria, note_seen, read_collection
from hpaloc.seen.record import load_seen, unite_seen
from hpaloc.tables import to_table, write_table


def main(job):
    group_by = job.params.group_by
    *first, (cells, fields, columns) = [
        keep_criteria(*read_collection(CollectionFiles(**known)), group_by) for known in job.params.collections
    ]
    before = [note_seen(*first[0], pd.read_parquet(path), group_by) for path in job.input.pretraining]
    if job.params.start and (start := load_seen(Path(job.params.start))):
        before.append(start)
    folds = pd.read_parquet(job.input.folds).set_index("field")["fold"]
    parts = []
    for fold, path in enumerate(job.input.examples, 1):
        seen = unite_seen([*before, note_seen(cells, fields, columns, pd.read_parquet(path), group_by)])
        own = (fields["field"].map(folds) == fold).to_numpy()
        of_fold = cells["field"].isin(fields.loc[own, "field"])
        tables = (table.reset_index(drop=True) for table in (cells[of_fold], fields[own], columns[own]))
        parts.append(find_seen(*tables, seen, group_by))
    found = pd.concat(parts, ignore_index=True)
    log.info("seen by the network that predicts them: %s", found["kind"].value_counts().to_dict() or "nothing")
    write_table(job.output[0], to_table(found, LEFT_OUT))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
