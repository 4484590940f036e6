"""Write the fields of one shard with their masks and called cells as SpatialData."""

from pathlib import Path

import pandas as pd

from hpaloc.exporting.calls import called_cells
from hpaloc.exporting.spatialdata import write_spatialdata
from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to


def main(job):
    with atomic_directory(job.output[0]) as folder:
        write_spatialdata(
            folder / "fields.zarr",
            read_manifest(job.input.manifest),
            Path(job.input.segmentation),
            called_cells(job.input.cells, job.input.predictions),
            Path(job.input.predictions),
            pd.read_parquet(job.input.fields),
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
