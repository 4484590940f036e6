"""Write the model and what a stranger needs to know about it as one zip."""

from pathlib import Path

from hpaloc.packing import pack_model
from hpaloc.progress import log_to


def main(job):
    pack_model(
        [Path(path) for path in job.input.model],
        Path(job.input.card[0]),
        Path(job.input.scores),
        Path(job.input.metrics),
        job.params.licence,
        Path(job.output[0]),
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
