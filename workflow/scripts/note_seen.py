"""Note what trains the network, as digests."""

from pathlib import Path

import pandas as pd

from hpaloc.layout import CollectionFiles
from hpaloc.progress import log, log_to
from hpaloc.seen.finding import note_seen, read_collection
from hpaloc.seen.record import load_seen, unite_seen, write_seen


def main(job):
    parts = []
    for known, path in zip(job.params.collections, job.input.examples, strict=True):
        tables = read_collection(CollectionFiles(**known))
        parts.append(note_seen(*tables, pd.read_parquet(path), job.params.group_by))
    if job.params.start:
        before = load_seen(Path(job.params.start))
        if before is None:
            log.warning("%s does not say what trained it; the scores do not leave that out", job.params.start)
        else:
            parts.append(before)
    write_seen(Path(job.output[0]), unite_seen(parts))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
