"""Score the predictions of the labelled collections."""

from pathlib import Path

from hpaloc.baselines.record import load_baselines, predict_baselines, training_shares
from hpaloc.evaluation.folder import evaluate, read_controls
from hpaloc.layout import CollectionFiles
from hpaloc.network.folder import read_settings
from hpaloc.progress import log_to


def main(job):
    collections = [CollectionFiles(**known) for known in job.params.collections]
    controls = read_controls(dict(zip(job.params.controls, job.input.controls, strict=True)), job.input.model)
    folder = Path(job.output.metrics).parent
    # Nothing is known about a model of model.path that does not say what trained it.
    names = [files.name for files in collections]
    seen = dict(zip(names, job.input.seen, strict=True)) if job.params.checked else None
    models = [Path(model) for model in job.params.models]
    # A cross-validation has a temperature for each of its networks.
    decision = read_settings(models[0])[1] if collections and len(models) == 1 else {}
    evaluate(
        collections,
        folder,
        controls,
        seed=job.params.seed,
        threads=job.threads,
        unscored=job.params.unscored,
        seen=seen,
        temperature=decision.get("temperature"),
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
