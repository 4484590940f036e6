"""Draw the fields and cells of one shard, with the activation maps of the network that predicts each cell."""

from pathlib import Path

import numpy as np
import pandas as pd

from hpaloc.browser.activation import shard_activation_maps
from hpaloc.browser.pictures import write_pictures
from hpaloc.classes import COLOURS
from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to


def main(job):
    tiles = dict(zip(COLOURS, map(Path, job.input.tiles), strict=True))
    # As in browse_shard.
    gpu = "none" if job.config["train"]["gpu"] == "none" else "auto"
    parts, keys = [], []
    for predictions, model in zip(job.input.of_folds, job.input.models, strict=True):
        of_fold = pd.read_parquet(predictions, columns=["field", "cell"])
        fields = set(of_fold["field"])
        parts.append(
            shard_activation_maps(
                Path(model).parent, tiles, Path(predictions), gpu=gpu, threads=job.threads, fields=fields
            )
        )
        keys.append(of_fold)
    predictions = pd.read_parquet(job.input.predictions)
    place = pd.MultiIndex.from_frame(pd.concat(keys)).get_indexer(
        pd.MultiIndex.from_frame(predictions[["field", "cell"]])
    )
    with atomic_directory(job.output[0]) as folder:
        write_pictures(
            folder,
            read_manifest(job.input.manifest),
            Path(job.input.segmentation),
            pd.read_parquet(job.input.cells),
            pd.read_parquet(job.input.fields),
            predictions,
            np.concatenate(parts)[place],
            most_fields=job.params.most_fields,
            field_size=job.params.field_size,
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
