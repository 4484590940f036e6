"""Run the studied cells through the network and its controls."""

from pathlib import Path

import pandas as pd

from hpaloc.interpretation.studied import chosen_cells
from hpaloc.interpretation.study import study_networks
from hpaloc.layout import CollectionFiles
from hpaloc.progress import log_to


def main(job):
    study_networks(
        chosen_cells(pd.read_parquet(job.input.cells)),
        {name: CollectionFiles(name, shards) for name, shards in job.params.shards.items()},
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
