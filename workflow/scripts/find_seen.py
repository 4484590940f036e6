"""Find what the model has seen of a collection."""

from pathlib import Path

from hpaloc.layout import CollectionFiles
from hpaloc.progress import log, log_to
from hpaloc.seen.finding import LEFT_OUT, find_seen, read_collection
from hpaloc.seen.record import load_seen, read_seen
from hpaloc.tables import to_table, write_table


def main(job):
    tables = read_collection(CollectionFiles(job.wildcards.collection, job.params.shards))
    seen = read_seen(Path(job.input.seen)) if job.input.seen else load_seen(Path(job.params.model))
    found = find_seen(*tables, seen, job.params.group_by, job.threads)
    log.info("seen by training: %s", found["kind"].value_counts(sort=False).to_dict() or "nothing")
    write_table(job.output[0], to_table(found, LEFT_OUT))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
