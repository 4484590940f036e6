"""Join the predictions of all folds into the tables of a predicted collection."""

from pathlib import Path

from hpaloc.cross_validation import join_predictions
from hpaloc.layout import CollectionFiles
from hpaloc.pooling import aggregate
from hpaloc.progress import log_to


def main(job):
    files = CollectionFiles(**job.params.files)
    n_shards = len(files.shards)
    # All shards of the first fold, then all of the second.
    for place, (cells, out) in enumerate(zip(job.input.cells, job.output.shards, strict=True)):
        join_predictions(job.input.predictions[place::n_shards], cells, out)
    # The prototypes of the folds differ, and so would the fractions of their fields.
    aggregate(files, Path(job.output.cells).parent, columns=Path(job.input.columns))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
