"""Write the run as RO-Crate."""

from pathlib import Path

from hpaloc.exporting.crate import write_crate
from hpaloc.progress import log_to


def main(job):
    code = {name: Path(job.params.workflow, name) for name in job.params.code}
    folder = Path(job.params.model)
    # The files that say what a model from elsewhere is.
    model = {f"model/{name}": folder / name for name in job.params.of_model if (folder / name).is_file()}
    config = str(job.input.config)
    made = [str(path) for path in (*job.input.run, *job.input.tables, *job.input.scores, *job.input.trained)]
    write_crate(
        Path(job.output[0]),
        job.params.collections,
        code,
        {config: Path(config), **model},
        {path: Path(path) for path in made},
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
