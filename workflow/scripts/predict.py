"""Predict the locations of the cells of one shard."""

from pathlib import Path

import pandas as pd

from hpaloc.classes import COLOURS
from hpaloc.prediction import predict_shard
from hpaloc.progress import log_to


def main(job):
    fields = None
    if folds := job.input.get("folds"):
        fold_of = pd.read_parquet(folds)
        fields = set(fold_of.loc[fold_of["fold"] == int(job.wildcards.fold), "field"])
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
        fields=fields,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
