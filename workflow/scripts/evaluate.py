"""Score the predictions of the labelled collections."""

from pathlib import Path

from hpaloc.evaluation.folder import Collection, evaluate, read_controls
from hpaloc.matching import TruthFiles
from hpaloc.progress import log_to


def main(job):
    collections = {
        name: Collection(
            predictions=Path("results/predictions", name),
            segmentation=Path("results/segmentation", name),
            truth=TruthFiles(truth["cells"], truth["masks"], truth["planned"]) if truth["cells"] else None,
        )
        for name, truth in job.params.truth.items()
    }
    controls = read_controls(dict(zip(job.params.controls, job.input.controls, strict=True)), job.input.model)
    folder = Path(job.output.metrics).parent
    evaluate(collections, folder, controls, seed=job.params.seed, threads=job.threads, unscored=job.params.unscored)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
