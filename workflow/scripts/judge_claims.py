"""Analyse what the network learned, and judge the claims of the method."""

from pathlib import Path

import pandas as pd

from hpaloc.files import write_json
from hpaloc.interpretation.analysis import InterpretationSettings, interpret, read_known_mixtures, score_mixtures
from hpaloc.progress import log_to


def main(job):
    mixtures = None
    if job.input.mixtures:
        known = read_known_mixtures(job.params.mixtures["table"], job.params.mixtures.get("of_2018", False))
        mixtures = score_mixtures(pd.read_parquet(job.input.mixtures[0]), known, job.params.seed)
    # Nothing is known about a model of model.path that does not say what trained it.
    checked = job.params.checked
    interpret(
        pd.read_parquet(job.input.cells),
        Path(job.input.network),
        pd.read_parquet(job.input.morphology),
        dict(zip(job.params.collections, map(Path, job.input.predictions), strict=True)),
        Path(job.output.claims).parent,
        InterpretationSettings(**job.params.settings),
        job.params.seed,
        mixtures,
        left_out=dict(zip(job.params.collections, map(Path, job.input.left_out), strict=True)) if checked else None,
        processes=job.threads,
    )
    write_json(job.output.made_with, job.params.made_with)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
