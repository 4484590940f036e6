"""Fetch the channel files of one shard from public addresses."""

from pathlib import Path

from hpaloc.download import RateLimiter, download_shard
from hpaloc.manifests import read_manifest
from hpaloc.progress import log_to


def main(job):
    per_second = job.config["collections"][job.wildcards.collection]["download"]["per_second"]
    download_shard(
        read_manifest(job.input.manifest),
        job.output[0],
        RateLimiter(Path(job.output[0]).parents[1] / ".pace", per_second),
        max_failed_fraction=job.config["max_rejected_fraction"],
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
