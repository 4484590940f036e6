"""Divide the fields of the training collection into the folds of a cross-validation."""

from hpaloc.classes import parse_labels, unite_labels
from hpaloc.columns import columns_of, read_columns
from hpaloc.cross_validation import write_columns
from hpaloc.folds import FOLDS, divide_fields
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.matching import read_truth
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def main(job):
    fields = read_fields(job.input.fields, job.input.annotations)
    if job.input.groups:
        fields = fields.join(columns_of(fields["field"], read_columns(job.input.groups[0], as_text=True)).to_pandas())
    texts = fields.set_index("field")["labels"]
    if job.params.true_cells:
        truth = read_truth(CollectionFiles(**job.params.true_cells), fields["field"])
        texts = truth.groupby("field")["labels"].agg(unite_labels)
    with_cells = set(read_cells(job.input.cells)["field"])
    labels = {field: parse_labels(text) for field, text in texts.items() if text and field in with_cells}
    folds = divide_fields(fields, labels, job.params.folds, job.params.group_by, job.params.seed)
    write_table(job.output.folds, to_table(folds, FOLDS))
    columns = job.input.columns[0] if job.input.columns else None
    write_columns(folds, columns, job.output.columns)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
