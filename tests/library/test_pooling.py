"""Pooled calls, the tables of a collection, and the submission."""

from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coco_masks import decode, encode
from workflow_runs import read_rows

from hpaloc import pooling, rle
from hpaloc.classes import N_CLASSES, NAMES, label_matrix
from hpaloc.column_pooling import pool_by_columns
from hpaloc.columns import read_columns
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import ANNOTATIONS
from hpaloc.mixtures.fractions import mixture_fractions, reading_fractions
from hpaloc.mixtures.reading import MIXTURES
from hpaloc.sheet import _OURS
from hpaloc.tables import CELLS, FIELDS, LEANED

WIDTH = 8


def _shard(
    folder: Path, name: str, fields: dict[str, int], seed: int, rejected: tuple[str, ...] = ()
) -> CollectionFiles:
    """Write the tables of a shard with random predictions; ``fields`` maps a field to its number of cells."""
    generator = np.random.default_rng(seed)
    cells = pd.DataFrame(
        [
            {"field": field, "cell": cell, "centroid_y": 3.0, "centroid_x": 4.0}
            for field, n in fields.items()
            for cell in range(1, n + 1)
        ],
        columns=["field", "cell", "centroid_y", "centroid_x"],
    ).astype({"cell": np.int32})
    masks = []
    for cell in cells["cell"]:
        mask = np.zeros((20, 30), bool)
        mask[cell : cell + 3, 2:9] = True
        masks.append(encode(mask))
    cells["rle"] = masks
    p = generator.random((len(cells), N_CLASSES)).astype(np.float32)
    embedding = generator.standard_normal((len(cells), WIDTH)).astype(np.float16)
    predictions = pa.table(
        {
            "field": cells["field"],
            "cell": cells["cell"],
            **{f"p_{index}": p[:, index] for index in range(N_CLASSES)},
            "labels": [str(row.argmax()) for row in p],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), WIDTH),
        }
    )
    names = [*fields, *rejected]
    table = pd.DataFrame(
        {
            "field": names,
            "height": [20 if field in fields else 0 for field in names],
            "width": [30 if field in fields else 0 for field in names],
            "status": ["ok" if field in fields else "rejected" for field in names],
            "stage": ["" if field in fields else "segment" for field in names],
            "reason": ["" if field in fields else "cannot be read" for field in names],
            "n_cells": [fields.get(field, 0) for field in names],
        }
    )
    files = CollectionFiles("test", [name], folder=folder)
    paths = {kind: files.path(kind, name) for kind in ("predictions", "cells", "fields", "annotations")}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    said = [f"{field},0|16,{'HPA1' if field.startswith('a') else ''},," for field in names]
    paths["annotations"].write_text("\n".join(["id,labels,antibody,cell_line,split", *said]) + "\n")
    pq.write_table(predictions, paths["predictions"])
    cells.to_parquet(paths["cells"])
    table.to_parquet(paths["fields"])
    return files


@pytest.fixture
def files(tmp_path: Path) -> CollectionFiles:
    """The files of three shards."""
    _shard(tmp_path, "000", {"a1": 4, "b1": 1}, seed=1, rejected=("c1",))
    _shard(tmp_path, "001", {}, seed=2)
    _shard(tmp_path, "002", {"a2": 3, "d1": 0}, seed=3)
    return CollectionFiles("test", ["000", "001", "002"], folder=tmp_path)


def test_every_cell_and_every_field_has_one_row(files: CollectionFiles, tmp_path: Path) -> None:
    pooling.aggregate(files, tmp_path / "out")
    cells = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    fields = pd.read_parquet(tmp_path / "out" / "fields.parquet").set_index("field")
    proteins = pd.read_parquet(tmp_path / "out" / "proteins.parquet").set_index("antibody")

    assert list(zip(cells["field"], cells["cell"], strict=True)) == [
        *(("a1", cell) for cell in (1, 2, 3, 4)),
        ("b1", 1),
        *(("a2", cell) for cell in (1, 2, 3)),
    ]
    assert list(fields.index) == ["a1", "b1", "c1", "a2", "d1"]
    assert fields["n_cells"].to_dict() == {"a1": 4, "b1": 1, "c1": 0, "a2": 3, "d1": 0}
    assert fields.loc["c1", ["status", "reason", "call_mean", "labels"]].tolist() == [
        "rejected",
        "cannot be read",
        -1,
        "",
    ]
    a1 = cells[cells["field"] == "a1"]
    columns = list(pooling.PROBABILITIES)
    np.testing.assert_allclose(fields.loc["a1", columns].to_numpy(float), a1[columns].mean().to_numpy(), atol=1e-6)
    assert proteins["n_cells"].to_dict() == {"HPA1": 7}
    assert proteins.loc["HPA1", ["sheet_labels", "n_fields"]].tolist() == ["0|16", 2]
    # The reference leads to the embedding of the same cell.
    row = cells[(cells["field"] == "a2") & (cells["cell"] == 2)].iloc[0]
    assert row["shard"] == "002"
    predictions = pq.read_table(files.path("predictions", "002")).to_pandas()
    assert tuple(predictions.loc[row["row"], ["field", "cell"]]) == ("a2", 2)


def test_without_antibodies_the_table_of_proteins_is_empty(tmp_path: Path) -> None:
    pooling.aggregate(_shard(tmp_path, "000", {"b1": 2}, seed=1), tmp_path)
    proteins = pd.read_parquet(tmp_path / "proteins.parquet")
    assert len(proteins) == 0
    assert {"antibody", "n_cells", "call_mean", "p_0"} <= set(proteins.columns)


def test_a_collection_without_any_cell_has_tables(tmp_path: Path) -> None:
    files = _shard(tmp_path, "000", {"a1": 0}, seed=1, rejected=("c1",))
    pooling.aggregate(files, tmp_path)
    pooling.write_submission(files, tmp_path / "submission.csv")
    assert len(pd.read_parquet(tmp_path / "cells.parquet")) == 0
    assert pd.read_parquet(tmp_path / "fields.parquet")["n_cells"].tolist() == [0, 0]
    assert anndata.read_h5ad(tmp_path / "cells.h5ad").shape == (0, WIDTH)
    assert (tmp_path / "submission.csv").read_text().splitlines()[1:] == ["a1,30,20,", "c1,0,0,"]


def test_anndata_holds_embeddings_probabilities_and_the_cell_table(files: CollectionFiles, tmp_path: Path) -> None:
    pooling.aggregate(files, tmp_path)
    table = anndata.read_h5ad(tmp_path / "cells.h5ad")
    expected = np.concatenate(
        [
            np.array(pq.read_table(path)["embedding"].to_pylist()).reshape(-1, WIDTH)
            for path in files.of_shards("predictions")
        ]
    )
    np.testing.assert_array_equal(table.X, expected.astype(np.float32))
    assert table.obs_names[0] == "a1:1"
    assert table.obs["sheet_labels"].astype(str).tolist() == ["0|16"] * 8
    assert table.obsm["probabilities"].shape == (8, N_CLASSES)
    assert table.uns["locations"][table.obsm["probabilities"][0].argmax()] == table.obs["called"].iloc[0]
    np.testing.assert_array_equal(table.obsm["spatial"][0], [4.0, 3.0])
    # The components are those of the embeddings: distances between cells are kept.
    scores = table.obsm["X_pca"]
    np.testing.assert_allclose(
        np.linalg.norm(scores[0] - scores[5]), np.linalg.norm(expected[0] - expected[5].astype(float)), rtol=1e-3
    )


def test_columns_of_the_sheet_are_in_the_tables_of_fields_and_cells(files: CollectionFiles, tmp_path: Path) -> None:
    columns = tmp_path / "columns.csv"
    columns.write_text("id,patient,dose,count\na1,007,0.5,1\na2,,1,\nb1,008,,2\nc1,009,2,3\nd1,x,0,4\n")
    pooling.aggregate(files, tmp_path / "without")
    pooling.aggregate(files, tmp_path / "with", columns=columns)
    without, fields = (pq.read_table(tmp_path / folder / "fields.parquet") for folder in ("without", "with"))
    assert fields.select(without.column_names) == without
    assert fields.column_names == [*without.column_names, "patient", "dose", "count"]
    of_field = {row["field"]: (row["patient"], row["dose"], row["count"]) for row in fields.to_pylist()}
    assert of_field["a1"] == ("007", 0.5, 1)
    assert of_field["a2"] == (None, 1.0, None)
    assert of_field["c1"] == ("009", 2.0, 3)
    obs = anndata.read_h5ad(tmp_path / "with/cells.h5ad").obs
    assert obs["patient"].astype(str).tolist() == ["007"] * 4 + ["008"] + [""] * 3
    np.testing.assert_array_equal(obs["dose"], [0.5] * 4 + [np.nan] + [1.0] * 3)
    for name in ("cells.parquet", "proteins.parquet"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_calls_are_pooled_by_columns_of_the_sheet(files: CollectionFiles, tmp_path: Path) -> None:
    columns = tmp_path / "columns.csv"
    columns.write_text("id,well,dose\na1,A1,1\na2,A1,1\nb1,A1,\nc1,B2,2\nd1,,2\n")
    prototypes = np.eye(N_CLASSES)
    pooling.aggregate(files, files.path("pooled_cells").parent, prototypes, columns=columns)
    pool_by_columns(files, ["well", "dose"], tmp_path / "pooled.parquet", prototypes)
    pooled = pd.read_parquet(tmp_path / "pooled.parquet")
    cells = pd.read_parquet(files.path("pooled_cells"))
    rows = pooled[["well", "dose", "n_fields", "n_cells", "sheet_labels"]].astype(object).where(pooled.notna(), None)
    assert rows.to_numpy().tolist() == [
        ["A1", 1.0, 2, 7, "0|16"],
        ["A1", None, 1, 1, "0|16"],
        ["B2", 2.0, 1, 0, "0|16"],
        [None, 2.0, 1, 0, "0|16"],
    ]
    first = cells[cells["field"].isin(["a1", "a2"])]
    names = [f"p_{index}" for index in range(N_CLASSES)]
    np.testing.assert_allclose(pooled.loc[0, names].to_numpy(float), first[names].mean(), rtol=1e-6)
    # By the antibody they are the calls of the proteins.
    pool_by_columns(files, ["antibody"], tmp_path / "pooled.parquet", prototypes)
    proteins = pd.read_parquet(files.path("pooled_cells").with_name("proteins.parquet"))
    of_antibody = pd.read_parquet(tmp_path / "pooled.parquet").iloc[1:].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_antibody, proteins)


@pytest.mark.parametrize("name", ["group", "index", "level_0", "key", "cell_line"])
def test_calls_are_pooled_by_a_column_of_any_name(files: CollectionFiles, tmp_path: Path, name: str) -> None:
    (tmp_path / "columns.csv").write_text(f"id,{name}_,well\na1,x,1\na2,y,\nb1,x,2\nc1,,3\nd1,y,900719925474099\n")
    pooling.aggregate(files, files.path("pooled_cells").parent, columns=tmp_path / "columns.csv")
    table = pd.read_parquet(files.path("pooled_fields")).drop(columns=[name], errors="ignore")
    table.rename(columns={f"{name}_": name}).to_parquet(files.path("pooled_fields"))
    pool_by_columns(files, [name], tmp_path / "pooled.parquet")
    pooled = pd.read_parquet(tmp_path / "pooled.parquet")[[name, "n_fields", "n_cells"]]
    assert pooled.fillna("").to_numpy().tolist() == [["x", 2, 5], ["y", 2, 3], ["", 1, 0]]


def test_integers_with_gaps_stay_integers(files: CollectionFiles, tmp_path: Path) -> None:
    columns = tmp_path / "columns.csv"
    columns.write_text("id,plate\na1,123456789012345\na2,\nb1,123456789012346\nc1,3\nd1,\n")
    pooling.aggregate(files, files.path("pooled_cells").parent, columns=columns)
    pool_by_columns(files, ["plate"], tmp_path / "pooled.parquet")
    pooled = pq.read_table(tmp_path / "pooled.parquet")
    assert pooled.schema.field("plate").type == pa.int64()
    assert pooled["plate"].to_pylist() == [3, 123456789012345, 123456789012346, None]
    obs = anndata.read_h5ad(files.path("pooled_cells").with_name("cells.h5ad")).obs
    assert obs["plate"].astype(object).where(obs["plate"].notna(), None).unique().tolist() == [
        123456789012345,
        123456789012346,
        None,
    ]


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (("-3", "0", ""), pa.int64()),
        (("123456789012345", "1"), pa.int64()),
        (("1234567890123456", "1"), pa.string()),
        (("0.30000000000000004", "1.50", "-2"), pa.float64()),
        (("12345678901234567.1", "3"), pa.string()),
        (("1.00000000000000001", "3"), pa.string()),
        *(((text, "1"), pa.string()) for text in ("007", "1E5", "NA", "1,5", "TRUE", "+1", ".5")),
    ],
)
def test_numbers_of_a_column_keep_all_their_digits(tmp_path: Path, texts: tuple[str, ...], kind: pa.DataType) -> None:
    path = tmp_path / "columns.csv"
    path.write_text("\n".join(["id,x", *(f'{place},"{text}"' for place, text in enumerate(texts))]) + "\n")
    assert read_columns(path)["x"].type == kind
    assert read_columns(path, as_text=True)["x"].to_pylist() == [text or None for text in texts]


def test_no_column_of_a_sheet_takes_the_name_of_another(files: CollectionFiles, tmp_path: Path) -> None:
    prototypes = np.eye(N_CLASSES)
    folder = files.path("pooled_cells").parent
    pooling.aggregate(files, folder, prototypes)
    pool_by_columns(files, ["antibody"], folder / "pooled.parquet", prototypes)
    ours = {*CELLS.names, *FIELDS.names, *ANNOTATIONS, *MIXTURES, *anndata.read_h5ad(folder / "cells.h5ad").obs}
    for name in ("fields", "proteins", "pooled"):
        ours |= set(pq.read_schema(folder / f"{name}.parquet").names)
    # In curation.group_by they are not columns.
    ours |= {"duplicates", "field"}
    assert [name for name in sorted(ours) if not _OURS.fullmatch(name)] == []


def test_aggregate_twice_gives_the_same_bytes(files: CollectionFiles, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        pooling.aggregate(files, tmp_path / folder)
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("change", ["lost", "invented", "twice", "moved"])
def test_a_cell_lost_invented_doubled_or_moved_is_named(files: CollectionFiles, tmp_path: Path, change: str) -> None:
    path = files.path("predictions", "000")
    table = pq.read_table(path)
    n = len(table)
    rows = {"lost": [0, 2, 3, 4], "twice": [0, 1, 1, 3, 4], "moved": [1, 0, 2, 3, 4]}.get(change, list(range(n)))
    table = table.take(rows)
    if change == "invented":
        table = table.set_column(1, "cell", pa.array([1, 9, 3, 4, 1], pa.int32()))
    pq.write_table(table, path)
    cell = {"lost": 2, "invented": 2, "twice": 2, "moved": 1}[change]
    for job in (
        lambda: pooling.aggregate(files, tmp_path / "out"),
        lambda: pooling.write_submission(files, tmp_path / "out.csv"),
    ):
        with pytest.raises(pooling.ConservationError, match=f"field a1, cell {cell}"):
            job()
    assert not (tmp_path / "out.csv").exists()


def test_a_field_whose_cells_were_not_all_tiled_is_named(files: CollectionFiles, tmp_path: Path) -> None:
    path = files.path("fields", "002")
    fields = pd.read_parquet(path)
    fields.loc[0, "n_cells"] = 4
    fields.to_parquet(path)
    with pytest.raises(pooling.ConservationError, match="field a2: 4 cells were segmented, 3 have a row"):
        pooling.aggregate(files, tmp_path)


def test_leaned_probabilities_are_kept_and_called_by_but_not_pooled(files: CollectionFiles, tmp_path: Path) -> None:
    pooling.aggregate(files, tmp_path / "alone")
    for shard in files.shards:
        path = files.path("predictions", shard)
        table = pq.read_table(path)
        for index, name in enumerate(LEANED):
            table = table.append_column(name, pa.array(np.full(len(table), 0.9 if index == 6 else 0.25, np.float32)))
        pq.write_table(table, path)
    pooling.aggregate(files, tmp_path / "leaned")
    cells = pd.read_parquet(tmp_path / "leaned" / "cells.parquet")
    assert (cells["leaned_6"] == np.float32(0.9)).all()
    alone = pd.read_parquet(tmp_path / "alone" / "cells.parquet")
    pd.testing.assert_frame_equal(cells[alone.columns], alone)
    for name in ("fields", "proteins"):
        pooled = [pd.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("alone", "leaned")]
        pd.testing.assert_frame_equal(*pooled)
    table = anndata.read_h5ad(tmp_path / "leaned" / "cells.h5ad")
    assert set(table.obs["called"]) == {NAMES[6]}
    np.testing.assert_allclose(table.obsm["leaned_probabilities"][:, 6], 0.9)
    np.testing.assert_allclose(table.obsm["probabilities"], alone[list(pooling.PROBABILITIES)], atol=1e-6)
    pooling.write_submission(files, tmp_path / "submission.csv")
    words = pd.read_csv(tmp_path / "submission.csv")["PredictionString"][0].split(" ")
    assert (words[18], words[19]) == ("6", "0.9")


def test_submission_decodes_to_the_masks_and_keeps_confidences(files: CollectionFiles, tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    pooling.write_submission(files, path)
    rows = read_rows(path)
    assert list(rows[0]) == ["ID", "ImageWidth", "ImageHeight", "PredictionString"]
    assert [row["ID"] for row in rows] == ["a1", "b1", "c1", "a2", "d1"]
    assert [row["PredictionString"] == "" for row in rows] == [False, False, True, False, True]
    words = rows[0]["PredictionString"].split(" ")
    assert len(words) == 3 * N_CLASSES * 4
    predictions = pq.read_table(files.path("predictions", "000")).to_pandas()
    for cell in range(4):
        for index in range(N_CLASSES):
            location, confidence, mask = words[3 * (cell * N_CLASSES + index) :][:3]
            assert int(location) == index
            assert np.float32(confidence) == predictions.loc[cell, f"p_{index}"]
            expected = np.zeros((20, 30), bool)
            expected[cell + 1 : cell + 4, 2:9] = True
            size = int(rows[0]["ImageHeight"]), int(rows[0]["ImageWidth"])
            np.testing.assert_array_equal(decode(rle.from_kaggle(mask), *size), expected)


def test_a_field_in_two_shards_is_an_error(files: CollectionFiles, tmp_path: Path) -> None:
    twice = replace(files, shards=[*files.shards, "000"])
    for job in (
        lambda: pooling.write_submission(twice, tmp_path / "s.csv"),
        lambda: pooling.aggregate(twice, tmp_path / "out"),
    ):
        with pytest.raises(pooling.ConservationError, match="field a1"):
            job()


def test_vote_and_mean_can_differ_and_ties_go_to_the_greater_mean() -> None:
    p = np.zeros((5, N_CLASSES))
    p[0, [3, 7]] = 0.4, 0.3
    p[1, [3, 7]] = 0.4, 0.3
    p[2, [3, 7]] = 0.0, 0.9
    p[3, 5], p[4, 6] = 0.7, 0.6
    sets = label_matrix([(3,), (3, 7), (7,), (5,), (6,)])
    pooled = pooling.pool_cells(p, sets, np.array([0, 0, 0, 2, 2]), 3)
    assert pooled["n_cells"].tolist() == [3, 0, 2]
    assert pooled["call_mean"].tolist() == [7, -1, 5]
    assert pooled["call_vote"].tolist() == [3, -1, 5]
    assert pooled["labels"].tolist() == ["3|7", "", "5|6"]
    assert pooled.loc[0, "share_3"] == pytest.approx(2 / 3)
    assert np.isnan(pooled.loc[1, "p_3"])


def test_fields_and_proteins_get_fractions_where_prototypes_are_known(files: CollectionFiles, tmp_path: Path) -> None:
    prototypes = np.full((N_CLASSES, N_CLASSES), np.nan)
    prototypes[[2, 7]] = np.eye(N_CLASSES)[[2, 7]]
    pooling.aggregate(files, tmp_path, prototypes)
    for name in ("fields", "proteins"):
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        table = table[table["n_cells"] > 0]
        expected = table["p_2"] / (table["p_2"] + table["p_7"])
        np.testing.assert_allclose(table["fraction_2"], expected, rtol=1e-5)
        np.testing.assert_allclose(table["fraction_2"] + table["fraction_7"], 1, rtol=1e-6)
    empty = pd.read_parquet(tmp_path / "fields.parquet").query("n_cells == 0")
    assert empty["fraction_2"].isna().all()


def test_fractions_are_of_the_readings_where_the_cells_have_them(files: CollectionFiles, tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    for path in files.of_shards("predictions"):
        table = pq.read_table(path)
        for index in range(N_CLASSES):
            values = generator.random(len(table)) * (index in (2, 7))
            table = table.append_column(f"mixture_{index}", pa.array(values.astype(np.float32)))
        pq.write_table(table, path)
    prototypes = np.full((N_CLASSES, N_CLASSES), np.nan)
    prototypes[[2, 7]] = np.eye(N_CLASSES)[[2, 7]]
    # Not those of a perfect reading, by which readings and prototypes would say the same.
    prototypes[2, 7] = 0.2
    pooling.aggregate(files, tmp_path, prototypes, MIXTURES)
    cells = pd.read_parquet(tmp_path / "cells.parquet")
    means = cells.groupby("field")[["mixture_2", "mixture_7"]].mean()
    fields = pd.read_parquet(tmp_path / "fields.parquet").set_index("field").loc[means.index]
    read = np.zeros((len(means), N_CLASSES))
    read[:, [2, 7]] = means
    expected = reading_fractions(read, prototypes)[:, 2]
    np.testing.assert_allclose(fields["fraction_2"], expected, rtol=1e-5)
    assert not np.allclose(expected, mixture_fractions(read, prototypes)[:, 2], rtol=1e-2)
