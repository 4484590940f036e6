"""Join the collections that are predicted into one cell browser."""

from pathlib import Path

from hpaloc.browser.page import BrowsedCollection, write_page
from hpaloc.progress import log_to


def main(job):
    folder = Path(job.output[0]).parent
    truth = dict(zip(job.params.true_cells, map(Path, job.input.truth), strict=True))
    collections = {
        name: BrowsedCollection(
            predictions=Path("results/predictions", name),
            pictures={shard: folder / name / shard for shard in shards},
            truth=truth.get(name),
        )
        for name, shards in job.params.shards.items()
    }
    write_page(folder, collections, seed=job.params.seed)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
