"""Score the predictions of the labelled collections and draw the scores."""

from pathlib import Path

from hpaloc.figures import evaluation
from hpaloc.metrics import Collection, evaluate, read_controls
from hpaloc.progress import log_to


def main(job):
    collections = {
        name: Collection(
            predictions=Path("results/predictions", name),
            segmentation=Path("results/segmentation", name),
            truth_cells=[Path(path) for path in truth["cells"]],
            truth_masks=truth["masks"],
        )
        for name, truth in job.params.truth.items()
    }
    folder = Path(job.output.metrics).parent
    controls = read_controls(dict(zip(job.params.controls, job.input.controls, strict=True)), job.input.model)
    evaluate(collections, folder, controls, seed=job.params.seed, threads=job.threads, unscored=job.params.unscored)
    evaluation(folder, folder)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
