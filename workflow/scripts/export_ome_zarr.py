"""Write the fields of one shard with their masks as OME-Zarr."""

from pathlib import Path

import pandas as pd

from hpaloc.exporting.ome_zarr import write_ome_zarr
from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to


def main(job):
    with atomic_directory(job.output[0]) as folder:
        write_ome_zarr(
            folder,
            read_manifest(job.input.manifest),
            Path(job.input.segmentation),
            pd.read_parquet(job.input.fields),
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
