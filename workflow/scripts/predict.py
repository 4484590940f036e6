"""Predict the locations of the cells of one shard."""

from pathlib import Path

from hpaloc.classes import COLOURS
from hpaloc.fold_table import read_folds
from hpaloc.prediction import predict_shard
from hpaloc.progress import log_to


def main(job):
    fields = None
    if path := job.input.get("folds"):
        folds = read_folds(path)
        fields = set(folds.index[folds == int(job.wildcards.fold)])
    predict_shard(
        Path(job.params.model),
        dict(zip(COLOURS, job.input.tiles, strict=True)),
        Path(job.input.cells),
        Path(job.output[0]),
        views=job.params.views,
        batch_size=job.config["predict"]["batch_size"],
        gpu=job.config["train"]["gpu"],
        threads=job.threads,
        precision=job.params.precision,
        field_weight=job.params.field_weight,
        # A folder of model.path decides itself what it reads; results/model may have a reading of an earlier run.
        mixtures=bool(job.config["model"]["path"] or job.input.reading),
        measures=Path(job.input.measures[0]) if job.input.measures else None,
        fields=fields,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
