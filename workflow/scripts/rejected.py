"""List every rejected field with its stage and reason, and every kind of warning."""

from hpaloc.accounting import list_rejected, list_warnings
from hpaloc.progress import log_to


def main(job):
    collections = dict(zip(job.params.collections, job.input, strict=True))
    list_rejected(collections, job.output.rejected)
    list_warnings(collections, job.output.warnings)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
