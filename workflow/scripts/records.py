"""Write the tiles of the examples as shuffled TFRecord shards."""

from hpaloc.classes import COLOURS
from hpaloc.progress import log_to
from hpaloc.records import write_dataset


def main(job):
    tiles = {colour: job.input.tiles[first :: len(COLOURS)] for first, colour in enumerate(COLOURS)}
    parts = {"train": job.output[0], "validation": job.output[1]}
    write_dataset(job.input.examples, tiles, parts, threads=job.threads)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
