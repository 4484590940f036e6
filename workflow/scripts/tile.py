"""Measure the cells of one shard and cut each into a tile per colour."""

import cv2

from hpaloc.classes import COLOURS
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to
from hpaloc.tiles import tile_shard


def main(job):
    # Each thread of the job processes a field; OpenCV would start further threads for all cores of the node.
    cv2.setNumThreads(1)
    tile_shard(
        read_manifest(job.input.manifest),
        job.input.masks,
        job.output.cells,
        job.output.fields,
        dict(zip(COLOURS, job.output.tiles, strict=True)),
        **job.params.tiles,
        threads=job.threads,
        max_rejected_fraction=job.config["max_rejected_fraction"],
        memory_mb=job.resources.mem_mb,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
