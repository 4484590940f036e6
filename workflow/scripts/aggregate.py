"""Join a collection's predictions and pool them into calls per field and protein."""

from pathlib import Path

from hpaloc.mixtures.fractions import read_prototypes
from hpaloc.pooling import aggregate, gather_shards
from hpaloc.progress import log_to


def main(job):
    shards = gather_shards(job.input.predictions, job.input.cells, job.input.fields, job.input.annotations)
    aggregate(shards, Path(job.output.cells).parent, *(read_prototypes(Path(job.params.model)) or ()))


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
