"""Fit thresholds to the fused probabilities of the network and its regression."""

from pathlib import Path

from hpaloc.fusion import learn_fusion
from hpaloc.progress import log_to


def main(job):
    learn_fusion(
        Path(job.input.model[0]).parent,
        Path(job.input.examples),
        [Path(path) for path in job.input.measures],
        job.params.weight,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
