"""Run the cells through the network and its controls."""

from pathlib import Path

import pandas as pd

from hpaloc.interpretation.studied import chosen_cells
from hpaloc.interpretation.study import Files, study_networks
from hpaloc.progress import log_to


def main(job):
    files = job.params.files
    study_networks(
        chosen_cells(pd.read_parquet(job.input.cells)),
        {name: of_collection["tiles"] for name, of_collection in files.items()},
        {
            name: Files(of_collection["manifests"], of_collection["cells"], of_collection["fields"])
            for name, of_collection in files.items()
        },
        {name: Path(folder) for name, folder in job.params.models.items()},
        Path(job.output[0]),
        fields=job.params.fields,
        seed=job.params.seed,
        gpu=job.config["train"]["gpu"],
        threads=job.threads,
        batch_size=job.config["predict"]["batch_size"],
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
