"""List every rejected field with its stage and reason."""

from hpaloc.accounting import list_rejected
from hpaloc.progress import log_to


def main(job):
    list_rejected(dict(zip(job.params.collections, job.input, strict=True)), job.output[0])


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
