"""Find the nuclei and cells of the fields of one shard."""

from hpaloc.files import atomic_directory
from hpaloc.manifests import read_manifest
from hpaloc.mask_tables import read_tables
from hpaloc.progress import log_to
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard


def main(job):
    rows = read_manifest(job.input.manifest)
    tables = read_tables(rows) if job.params.segmentation["backend"] == "masks" else {}
    with atomic_directory(job.output[0]) as folder:
        segment_shard(
            rows,
            folder,
            SegmentationSettings(**job.params.segmentation, device=job.config["segmentation"]["device"]),
            DaskSettings(**job.config["dask"]),
            threads=job.threads,
            memory_mb=job.resources.mem_mb,
            max_rejected_fraction=job.config["max_rejected_fraction"],
            tables=tables,
        )


# Dask's workers import this file too; only the job itself may start a cluster.
if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
