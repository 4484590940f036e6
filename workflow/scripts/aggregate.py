"""Join a collection's predictions and pool them into calls per field and protein."""

from pathlib import Path

from hpaloc.layout import CollectionFiles
from hpaloc.mixtures.fractions import read_prototypes
from hpaloc.pooling import aggregate
from hpaloc.progress import log_to
from hpaloc.tables import PROBABILITIES


def main(job):
    files = CollectionFiles(job.wildcards.collection, job.params.shards)
    # A folder of model.path decides itself what it reads; results/model may have a reading of an earlier run.
    mixtures = bool(job.config["model"]["path"] or job.input.reading)
    fused = bool(job.config["model"]["path"] or job.input.fusion)
    prototypes, outputs = read_prototypes(Path(job.params.model), mixtures, fused) or (None, PROBABILITIES)
    columns = files.path("columns") if job.input.columns else None
    aggregate(files, Path(job.output.cells).parent, prototypes, outputs, columns)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
