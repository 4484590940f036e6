"""Put the scores of the cross-validation into one line."""

import pandas as pd

from hpaloc.cross_validation import describe_scores
from hpaloc.files import write_json
from hpaloc.progress import log, log_to


def main(job):
    line = describe_scores(pd.read_csv(job.input[0]), job.params.collection, job.params.folds, job.params.group_by)
    log.info("%s", line)
    write_json(job.output.summary, {"line": line})
    write_json(job.output.made_with, job.params.made_with)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
