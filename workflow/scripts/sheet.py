"""Join the field tables of a collection's shards."""

from hpaloc.field_table import join_fields
from hpaloc.progress import log_to


def main(job):
    shards = dict(zip(job.params.shards, job.input.fields, strict=True))
    columns = job.input.columns[0] if job.input.columns else None
    join_fields(shards, job.input.annotations, job.output[0], job.config["max_rejected_fraction"], columns)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
