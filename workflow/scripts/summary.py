"""Count the fields and cells that came in, went through and were rejected."""

from hpaloc.accounting import summarise
from hpaloc.progress import log_to


def main(job):
    fields = dict(zip(job.params.collections, job.input.fields, strict=True))
    summarise(fields, dict(zip(job.params.predicted, job.input.predictions, strict=True)), job.output[0])


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
