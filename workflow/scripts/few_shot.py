"""Give every cell of a collection one of the labels of a few cells that a person labelled."""

from pathlib import Path

from hpaloc.interpretation.few_shot import label_cells, read_embeddings, read_examples, write_labels
from hpaloc.progress import log_to


def main(job):
    cells, embeddings = read_embeddings(job.input.predictions)
    examples = read_examples(job.params.table)
    labelled, summary = label_cells(cells, embeddings, examples, job.params.learner, job.params.seed)
    write_labels(labelled, summary, job.params.collection, job.params.model, Path(job.output.page).parent)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
