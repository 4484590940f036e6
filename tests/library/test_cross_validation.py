"""The folds of a cross-validation, and the tables and the sentence that are made of their predictions."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpaloc.columns import columns_of, join_columns, read_columns
from hpaloc.cross_validation import FOLD, describe_scores, join_predictions, write_columns
from hpaloc.fold_table import FOLDS, is_in_fold, read_folds
from hpaloc.folds import divide_fields, label_fields
from hpaloc.layout import CollectionFiles
from hpaloc.seen.folds import keep_criteria
from hpaloc.tables import to_table, write_table


def fields_of(antibodies, **columns):
    names = [f"f{place:03d}" for place in range(len(antibodies))]
    return pd.DataFrame({"field": names, "antibody": antibodies, **columns})


def test_a_fold_divides_no_group_and_has_its_share_of_every_location():
    antibodies = np.repeat([f"a{number:02d}" for number in range(30)], 3)
    fields = fields_of(antibodies)
    labels = {field: (int(antibody[1:]) % 3 * 2,) for field, antibody in zip(fields["field"], antibodies, strict=True)}
    folds = divide_fields(fields, labels, 5, ["antibody", "duplicates"], 1)
    assert folds["field"].tolist() == fields["field"].tolist()
    assert (folds.groupby(antibodies)["fold"].nunique() == 1).all()
    of_location = folds.assign(label=[labels[field] for field in folds["field"]]).groupby(["label", "fold"]).size()
    assert of_location.tolist() == [6] * 15
    assert divide_fields(fields, labels, 5, ["antibody"], 1).equals(folds)
    assert not divide_fields(fields, labels, 5, ["antibody"], 2).equals(folds)
    # Without the antibody, each field is its own group.
    by_field = divide_fields(fields, labels, 5, ["field"], 1)
    assert (by_field.groupby(antibodies)["fold"].nunique() > 1).any()


def test_fields_without_labels_are_in_folds_too():
    fields = fields_of([None] * 20)
    labels = {field: (0,) for field in fields["field"][:9]}
    folds = divide_fields(fields, labels, 3, ["field"], 0)
    assert folds["fold"][:9].value_counts().tolist() == [3, 3, 3]
    assert folds["fold"][9:].value_counts().max() == 4
    few = divide_fields(fields[:10], labels, 3, ["field"], 0)
    assert few["fold"].between(1, 3).all()


def test_the_validation_part_of_the_sheet_is_spread_over_the_folds():
    split = ["validation", "train", "train"] * 6
    fields = fields_of([None] * 18, split=split)
    folds = divide_fields(fields, dict.fromkeys(fields["field"], (0,)), 3, ["field"], 0)
    assert folds["fold"][np.array(split) == "validation"].value_counts().tolist() == [2, 2, 2]


@pytest.mark.parametrize(("groups", "folds"), [(3, 4), (2, 2), (3, 2)])
def test_too_few_groups_are_an_error(groups, folds):
    fields = fields_of([f"a{place % groups}" for place in range(12)])
    labels = dict.fromkeys(fields["field"], (0,))
    with pytest.raises(ValueError, match=f"evaluation.folds: {folds} folds need more than {groups} groups"):
        divide_fields(fields, labels, folds, ["antibody"], 0)


def test_a_field_has_the_labels_of_its_true_cells_if_they_are_known():
    fields = pd.DataFrame({"field": ["a", "b", "c", "d"], "labels": ["0", "14|0", "", "2"]})
    cells = pd.DataFrame({"field": ["a", "a", "b", "c"]})
    assert label_fields(fields, cells) == {"a": (0,), "b": (0, 14)}
    truth = pd.DataFrame({"field": ["b", "b", "c", "d"], "labels": ["3", "16", "2", "5"]})
    assert label_fields(fields, cells, truth) == {"b": (3, 16), "c": (2,)}


def test_the_rows_of_a_fold_are_those_of_the_fields_that_it_leaves_out(tmp_path):
    folds = pd.DataFrame({"field": ["a", "b", "c"], "group": ["a", "b", "a"], "fold": [1, 2, 1]})
    write_table(tmp_path / "folds.parquet", to_table(folds, FOLDS))
    found = read_folds(tmp_path / "folds.parquet")
    assert found.to_dict() == {"a": 1, "b": 2, "c": 1}
    cells = pd.DataFrame({"field": ["c", "b", "c", "a"]})
    assert is_in_fold(cells, found, 1).tolist() == [True, False, True, True]
    assert is_in_fold(cells[:0], found, 1).tolist() == []


def test_columns_of_a_sheet_are_joined_by_field_as_text(tmp_path):
    fields = pd.DataFrame({"field": ["f1", "f0"]})
    assert join_columns(fields, None).equals(fields)
    (tmp_path / "groups.csv").write_text("id,plate\nf0,007\nf1,8\n")
    assert join_columns(fields, tmp_path / "groups.csv")["plate"].tolist() == ["8", "007"]


def write_part(path, rows):
    table = pa.table(
        {
            "field": pa.array([field for field, _ in rows], pa.string()),
            "cell": pa.array([cell for _, cell in rows], pa.int32()),
            "p_0": pa.array([cell / 10 for _, cell in rows], pa.float32()),
            "embedding": pa.array([np.float16([cell, 1]) for _, cell in rows], pa.list_(pa.float16(), 2)),
        }
    )
    pq.write_table(table, path)
    return path


def test_the_predictions_of_the_folds_are_joined_in_the_order_of_the_cells(tmp_path):
    rows = [("a", 1), ("a", 2), ("b", 1), ("c", 4), ("c", 7)]
    cells = write_part(tmp_path / "cells.parquet", rows)
    parts = [write_part(tmp_path / f"{fold}.parquet", own) for fold, own in enumerate((rows[3:], [], rows[:3]))]
    join_predictions(parts, cells, tmp_path / "joined.parquet")
    assert pq.read_table(tmp_path / "joined.parquet").equals(pq.read_table(cells))
    for wrong, cell in ((parts[:2], "a, cell 1"), ([*parts, parts[0]], "c, cell 4")):
        with pytest.raises(ValueError, match=f"field {cell}: is not predicted by the network of one fold"):
            join_predictions(wrong, cells, tmp_path / "joined.parquet")


def test_the_fold_of_a_field_stands_beside_the_columns_of_its_sheet(tmp_path):
    (tmp_path / "columns.csv").write_text('id,well,note\nf001,007,"a, b"\nf000,008,\n')
    folds = pd.DataFrame({"field": ["f000", "f001", "f002"], "fold": [2, 1, 2]})
    for given in (tmp_path / "columns.csv", None):
        write_columns(folds, given, tmp_path / "out.csv")
        found = columns_of(["f002", "f001"], read_columns(tmp_path / "out.csv"))
        assert found[FOLD].to_pylist() == [2, 1]
    write_columns(folds, tmp_path / "columns.csv", tmp_path / "out.csv")
    found = columns_of(["f002", "f001"], read_columns(tmp_path / "out.csv"))
    assert found["well"].to_pylist() == [None, "007"]
    assert found["note"].to_pylist() == [None, "a, b"]


def test_the_scores_are_one_sentence_with_intervals():
    rows = [
        ("cell", "accuracy", 0.88, 0.8, 0.95, 453),
        ("cell_leaned", "accuracy", 0.96, None, None, 453),
        ("cell", "macro_ap", 0.5, 0.4, 0.6, 453),
        ("field", "accuracy", 1.0, 0.93, 1.0, 51),
        ("protein", "accuracy", None, None, None, 0),
    ]
    scores = pd.DataFrame(rows, columns=["level", "score", "value", "low", "high", "n"])
    line = describe_scores(scores, "train", 5, ["antibody", "duplicates"])
    assert "in 5 folds by antibody, duplicates" in line
    assert "0.880 (0.800 to 0.950) of 453 cells alone; 0.960 of 453 cells with" in line
    assert "1.000 (0.930 to 1.000) of 51 fields." in line
    assert describe_scores(scores.assign(value=None), "train", 5, ["field"]) == ""


def test_predictions_of_a_cross_validation_are_in_a_folder_of_their_own():
    files = CollectionFiles("train", ["000"], predicted_in="results/cross_validation")
    assert str(files.path("predictions", "000")) == "results/cross_validation/predictions/train/shards/000.parquet"
    assert str(files.path("anndata")) == "results/cross_validation/predictions/train/cells.h5ad"
    assert str(files.path("pictures", "000")) == "results/cross_validation/browser/train/000"
    assert str(files.path("scored_cells")) == "results/cross_validation/evaluation/train/cells.parquet"
    assert files.path("cells", "000") == CollectionFiles("train").path("cells", "000")


def test_an_antibody_or_gene_that_groups_nothing_is_not_looked_for():
    fields = fields_of(["A", "B"], cell_line=["c", "d"])
    columns = pd.DataFrame({"gene": ["g", "g"], "patient": ["p", "q"]})
    _, own, kept = keep_criteria(pd.DataFrame(), fields, columns, ["patient"])
    assert own["antibody"].isna().all()
    assert list(kept) == ["patient"]
    _, own, kept = keep_criteria(pd.DataFrame(), fields, columns, ["antibody", "gene"])
    assert own["antibody"].tolist() == ["A", "B"]
    assert list(kept) == ["gene"]
