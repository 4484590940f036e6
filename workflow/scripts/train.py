"""Train the network."""

from pathlib import Path

from hpaloc.progress import log_to
from hpaloc.training.settings import TrainSettings
from hpaloc.training.train import train_model


def main(job):
    train = job.config["train"]
    # Snakemake reads tmpdir on the node of the job.
    scratch = {"auto": job.resources.tmpdir, "none": None}.get(train["cache"], train["cache"])
    train_model(
        Path(job.input.examples).parent,
        Path(job.input.examples),
        Path(job.output.history).parent,
        TrainSettings(**job.params.train, **{key: train[key] for key in ("gpu", "gpus", "xla")}),
        job.params.seed,
        threads=job.threads,
        tiles=job.config["tiles"],
        memory_mb=job.resources.mem_mb,
        scratch=Path(scratch) if scratch else None,
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
