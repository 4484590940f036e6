"""Draw some fields of a collection with the outlines of their cells."""

from pathlib import Path

import pandas as pd

from hpaloc.browser.preview import write_preview
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to


def main(job):
    write_preview(
        Path(job.output[0]),
        job.wildcards.collection,
        read_manifest(job.input.manifest),
        Path(job.input.segmentation),
        pd.read_parquet(job.input.cells),
        pd.read_parquet(job.input.fields),
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
