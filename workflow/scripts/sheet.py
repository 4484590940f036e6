"""Join the field tables of a collection's shards."""

from hpaloc.progress import log_to
from hpaloc.tables import join_fields


def main(job):
    join_fields(dict(zip(job.params.shards, job.input, strict=True)), job.output[0])


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
