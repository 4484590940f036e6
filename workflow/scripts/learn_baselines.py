"""Learn the baselines of the network."""

from pathlib import Path

from hpaloc.baselines.learning import learn_baselines
from hpaloc.progress import log_to


def main(job):
    measures = [Path(path) for path in job.input.measures]
    learn_baselines(Path(job.output[0]).parent, Path(job.input.examples), measures, job.params.seed)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
