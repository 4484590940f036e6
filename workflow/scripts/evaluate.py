"""Score the predictions of the labelled collections."""

from pathlib import Path

from hpaloc.baselines.prediction import predict_baselines
from hpaloc.baselines.record import load_baselines, training_shares
from hpaloc.evaluation.folder import evaluate, read_controls
from hpaloc.fold_table import read_folds
from hpaloc.layout import CollectionFiles
from hpaloc.network.fusion import decision_in_use
from hpaloc.progress import log_to


def main(job):
    collections = [CollectionFiles(**known) for known in job.params.collections]
    controls = read_controls(dict(zip(job.params.controls, job.input.controls, strict=True)), job.input.model)
    folder = Path(job.output.metrics).parent
    # Nothing is known about a model of model.path that does not say what trained it.
    names = [files.name for files in collections]
    seen = dict(zip(names, job.input.seen, strict=True)) if job.params.checked else None
    models = [Path(model) for model in job.params.models] if collections else []
    learned = [load_baselines(model) for model in models]
    folds = read_folds(job.input.folds) if job.input.get("folds") else None
    baselines = None
    if all(learned):
        baselines = {
            files.name: predict_baselines(learned, files.of_shards("baselines"), folds) for files in collections
        }
    evaluate(
        collections,
        folder,
        controls,
        seed=job.params.seed,
        threads=job.threads,
        unscored=job.params.unscored,
        seen=seen,
        # A cross-validation has a temperature for each of its networks.
        temperature=decision_in_use(models[0], job.params.fused).get("temperature") if len(models) == 1 else None,
        baselines=baselines,
        shares=training_shares(models),
    )


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
