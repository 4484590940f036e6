"""Write the cells of one shard with their calls as GeoJSON."""

from pathlib import Path

import pandas as pd

from hpaloc.exporting.calls import called_cells
from hpaloc.exporting.geojson import write_geojson
from hpaloc.files import atomic_directory
from hpaloc.progress import log_to


def main(job):
    with atomic_directory(job.output[0]) as folder:
        write_geojson(
            folder,
            job.wildcards.collection,
            Path(job.input.segmentation),
            called_cells(job.input.cells, job.input.predictions),
            pd.read_parquet(job.input.fields),
        )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
