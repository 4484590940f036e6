"""Choose and label the cells that train and validate the model."""

from hpaloc.columns import join_columns
from hpaloc.curation import CurationSettings, curate
from hpaloc.examples import EXAMPLES
from hpaloc.files import atomic_path, write_json
from hpaloc.fold_table import is_in_fold, read_folds
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.matching import read_true_labels
from hpaloc.progress import log_to
from hpaloc.tables import to_table, write_table


def main(job):
    cells = read_cells(job.input.cells, job.input.annotations)
    groups = job.input.groups[0] if job.input.groups else None
    fields = join_columns(read_fields(job.input.fields, job.input.annotations), groups)
    if path := job.input.get("folds"):
        # A fold trains on the fields of all others.
        folds, fold = read_folds(path), int(job.wildcards.fold)
        cells, fields = (table[~is_in_fold(table, folds, fold)].reset_index(drop=True) for table in (cells, fields))
    truth = None
    if job.params.true_cells:
        truth = read_true_labels(cells, fields, CollectionFiles(**job.params.true_cells))
    settings = CurationSettings(**job.params.curation)
    examples, summary, rejected = curate(cells, fields, settings, job.params.seed, truth, job.params.one_location)
    write_table(job.output.examples, to_table(examples, EXAMPLES))
    write_json(job.output.summary, summary)
    with atomic_path(job.output.rejected) as temporary:
        rejected.to_parquet(temporary, index=False)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
