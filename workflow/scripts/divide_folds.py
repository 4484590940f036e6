"""Divide the fields of the training collection into the folds of a cross-validation."""

from hpaloc.columns import join_columns
from hpaloc.cross_validation import write_columns
from hpaloc.fold_table import FOLDS
from hpaloc.folds import divide_fields, label_fields
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.matching import read_truth
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def main(job):
    groups, columns = (paths[0] if paths else None for paths in (job.input.groups, job.input.columns))
    fields = join_columns(read_fields(job.input.fields, job.input.annotations), groups)
    truth = None
    if job.params.true_cells:
        truth = read_truth(CollectionFiles(**job.params.true_cells), fields["field"])
    labels = label_fields(fields, read_cells(job.input.cells), truth)
    folds = divide_fields(fields, labels, job.params.folds, job.params.group_by, job.params.seed)
    write_table(job.output.folds, to_table(folds, FOLDS))
    write_columns(folds, columns, job.output.columns)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
