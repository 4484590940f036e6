"""Label every cell of a collection from a few cells that a person labelled."""

from pathlib import Path

from hpaloc.files import write_json
from hpaloc.interpretation.few_shot import assign_labels, read_examples, read_features, write_labels
from hpaloc.progress import log_to


def main(job):
    cells, embeddings = read_features(job.input.predictions)
    examples = read_examples(job.params.table)
    labelled, summary = assign_labels(cells, embeddings, examples, job.params.learner, job.params.seed)
    write_labels(labelled, summary, job.params.collection, job.params.model, Path(job.output.page).parent)
    write_json(job.output.made_with, job.params.made_with)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
