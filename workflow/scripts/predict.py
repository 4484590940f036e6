"""Predict the locations of the cells of one shard, or of one fold, which has cells of all shards."""

from pathlib import Path

from hpaloc.classes import COLOURS
from hpaloc.fold_table import read_folds
from hpaloc.prediction import Predictor
from hpaloc.progress import log_to


def main(job):
    fields = None
    if path := job.input.get("folds"):
        folds = read_folds(path)
        fields = set(folds.index[folds == int(job.wildcards.fold)])
    predictor = Predictor(
        Path(job.params.model),
        views=job.params.views,
        batch_size=job.config["predict"]["batch_size"],
        gpu=job.config["train"]["gpu"],
        threads=job.threads,
        precision=job.params.precision,
        # A folder of model.path decides itself what it reads; results/model may have a reading of an earlier run.
        mixtures=bool(job.config["model"]["path"] or job.input.reading),
    )
    for index, (cells, out) in enumerate(zip(job.input.cells, job.output, strict=True)):
        tiles = job.input.tiles[index * len(COLOURS) : (index + 1) * len(COLOURS)]
        predictor.predict_shard(
            dict(zip(COLOURS, tiles, strict=True)),
            Path(cells),
            Path(out),
            field_weight=job.params.field_weight,
            measures=Path(job.input.measures[index]) if job.input.measures else None,
            fields=fields,
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
