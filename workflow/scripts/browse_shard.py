"""Draw the fields and cells of one shard for the browser, with the activation map of each cell."""

from pathlib import Path

import pandas as pd

from hpaloc.browser.activation import fold_activation_maps, shard_activation_maps
from hpaloc.browser.pictures import shown_fields, write_pictures
from hpaloc.classes import COLOURS
from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to


def main(job):
    tiles = dict(zip(COLOURS, map(Path, job.input.tiles), strict=True))
    # The job requests no GPU: it uses one if there is one, but does not fail without, even if training requires one.
    gpu = "none" if job.config["train"]["gpu"] == "none" else "auto"
    predictions = Path(job.input.predictions)
    fields = pd.read_parquet(job.input.fields)
    chosen = shown_fields(list(fields.loc[fields["status"] == "ok", "field"]), job.params.most_fields)
    if folds := job.input.get("of_folds"):
        models = [Path(path).parent for path in job.input.models]
        parts = [Path(path) for path in folds]
        maps = fold_activation_maps(models, tiles, parts, predictions, gpu, job.threads, chosen)
    else:
        model = Path(job.params.model)
        maps = shard_activation_maps(model, tiles, predictions, gpu=gpu, threads=job.threads, fields=chosen)
    with atomic_directory(job.output[0]) as folder:
        write_pictures(
            folder,
            read_manifest(job.input.manifest),
            Path(job.input.segmentation),
            pd.read_parquet(job.input.cells),
            fields,
            pd.read_parquet(predictions),
            maps,
            chosen,
            field_size=job.params.field_size,
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
