"""From predictions of single cells to the tables of a collection: pooled calls per field and protein, submission."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import PCA

from hpaloc import rle
from hpaloc.classes import LOCATIONS, N_CLASSES, NAMES, format_labels, label_matrix, parse_all, unite_labels
from hpaloc.columns import add_columns, read_columns, to_frame
from hpaloc.embeddings import read_embeddings
from hpaloc.files import atomic_path
from hpaloc.joining import annotate
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import read_annotations
from hpaloc.mixtures.fractions import FRACTIONS, mixture_fractions, reading_fractions
from hpaloc.mixtures.reading import MIXTURES
from hpaloc.progress import log, track
from hpaloc.tables import LEANED, NETWORK, PROBABILITIES, calling_columns, group_probabilities, write_table
from hpaloc.votes import pool_probabilities

SHARES = tuple(f"share_{index}" for index in range(N_CLASSES))

# Enough for the leading components of an embedding; bounds the memory of a collection of any size.
_PCA_SAMPLE = 20_000
_PCA_COMPONENTS = 50
# Of the embeddings: half of the time of gzip's usual level, and a tenth smaller, because float16 leaves bytes of zeros.
# LZF would be twice as fast again, but readers in other languages than Python may lack it.
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


class ConservationError(ValueError):
    """Cells were lost, duplicated or invented between two steps; the message names field and cell."""


def check_conserved(cells: pd.DataFrame, predictions: pd.DataFrame, what: str = "predictions") -> None:
    """Raise ConservationError unless both tables hold the same cells (field, cell) in the same order, each once."""
    keys = [pd.MultiIndex.from_frame(table[["field", "cell"]]) for table in (cells, predictions)]
    for table, key in zip(("the cell table", what), keys, strict=True):
        if key.has_duplicates:
            field, cell = key[key.duplicated()][0]
            raise ConservationError(f"field {field}, cell {cell}: appears twice in {table}")
    for present, absent, where in ((keys[0], keys[1], what), (keys[1], keys[0], "the cell table")):
        lost = present.difference(absent, sort=False)
        if len(lost):
            raise ConservationError(
                f"field {lost[0][0]}, cell {lost[0][1]}: is not in {where} ({len(lost)} such cells)"
            )
    moved = np.flatnonzero(keys[0] != keys[1])
    if len(moved):
        field, cell = keys[0][moved[0]]
        raise ConservationError(f"field {field}, cell {cell}: the rows of {what} are in another order")


def check_field_counts(fields: pd.DataFrame, cells: pd.DataFrame) -> None:
    """Raise ConservationError unless each field's n_cells is the number of its rows in the cell table.

    A rejected field has no cells; a cell of an unknown field is an error too.
    """
    twice = fields["field"].duplicated()
    if twice.any():
        raise ConservationError(f"field {fields['field'][twice].iloc[0]}: appears twice in the field table")
    counted = cells["field"].value_counts()
    unknown = counted.index.difference(pd.Index(fields["field"]))
    if len(unknown):
        cell = cells.loc[cells["field"] == unknown[0], "cell"].iloc[0]
        raise ConservationError(f"field {unknown[0]}, cell {cell}: the field is not in the field table")
    expected = fields["n_cells"].fillna(0).to_numpy(np.int64) * (fields["status"] == "ok").to_numpy()
    found = counted.reindex(fields["field"], fill_value=0).to_numpy()
    wrong = np.flatnonzero(expected != found)
    if len(wrong):
        row = wrong[0]
        raise ConservationError(
            f"field {fields['field'].iloc[row]}: {expected[row]} cells were segmented, {found[row]} have a row"
        )


def pool_cells(p: np.ndarray, called_sets: np.ndarray, group: np.ndarray, n_groups: int) -> pd.DataFrame:
    """Pool the predictions of cells into one call per group.

    p: (n, 19) float probabilities
    called_sets: (n, 19) 0 or 1, the label set of each cell
    group: (n,) int, 0 … n_groups - 1

    Returns n_groups rows: n_cells, p_0..p_18 (mean probability), call_mean (class of the greatest mean), call_vote
    (class that most cells are called, each by its most likely class; equal votes go to the greater mean),
    share_0..share_18 (share of cells whose label set holds the class) and labels (label string of the classes held
    by at least half of the cells, else of call_vote). A group without cells has nan, -1 and "".
    """
    pooled = pool_probabilities(p, group, n_groups)
    mean, share = pooled.mean, np.zeros((n_groups, N_CLASSES))
    np.add.at(share, group, called_sets)
    with np.errstate(invalid="ignore"):
        share /= pooled.n_cells[:, None]
    mean[pooled.n_cells == 0] = np.nan
    labels = [
        format_labels(np.flatnonzero(row >= 0.5)) or (str(vote) if vote >= 0 else "")
        for row, vote in zip(share, pooled.by_vote, strict=True)
    ]
    calls = {"n_cells": pooled.n_cells, "call_mean": pooled.by_mean, "call_vote": pooled.by_vote, "labels": labels}
    return pd.concat(
        [
            pd.DataFrame(calls),
            pd.DataFrame(mean.astype(np.float32), columns=list(PROBABILITIES)),
            pd.DataFrame(share.astype(np.float32), columns=list(SHARES)),
        ],
        axis=1,
    )


def pooled_calls(
    cells: pd.DataFrame,
    owners: pd.DataFrame,
    key: str,
    prototypes: np.ndarray | None = None,
    outputs: Sequence[str] = PROBABILITIES,
) -> pd.DataFrame:
    """Pool cells into one row for each row of ``owners``.

    cells: ``key``, p_0..p_18, labels (the called label set)
    owners: ``key`` (each value once) and columns to carry
    prototypes: (19, 19) float64, of the columns ``outputs``

    Returns owners with the columns of ``call_groups``.
    Raises ValueError naming an owner that has cells but no row.
    """
    group = pd.Index(owners[key]).get_indexer(pd.Index(cells[key]))
    if (group < 0).any():
        raise ValueError(f"{key} {cells[key].iloc[int(np.argmax(group < 0))]}: has cells but no row of its own")
    called = call_groups(cells, group, len(owners), prototypes, outputs)
    return pd.concat([owners.reset_index(drop=True), called], axis=1)


def call_groups(
    cells: pd.DataFrame,
    group: np.ndarray,
    n_groups: int,
    prototypes: np.ndarray | None = None,
    outputs: Sequence[str] = PROBABILITIES,
) -> pd.DataFrame:
    """Pool cells into one row for each group.

    cells: p_0..p_18, labels (the called label set)
    group: (n,) int, 0 … n_groups - 1
    prototypes: (19, 19) float64, of the columns ``outputs``

    Returns the columns of ``pool_cells`` and, with prototypes, fraction_0..fraction_18 of the mean of the columns
    ``outputs``: see ``mixture_fractions``, or ``reading_fractions`` for readings.
    """
    p = cells[list(PROBABILITIES)].to_numpy(np.float64)
    pooled = pool_cells(p, label_matrix(parse_all(cells["labels"])), group, n_groups)
    if prototypes is not None:
        means = cells[list(outputs)].astype(np.float64).groupby(group).mean().reindex(range(n_groups))
        infer = reading_fractions if tuple(outputs) == MIXTURES else mixture_fractions
        fractions = infer(means.to_numpy(np.float64), prototypes)
        pooled = pd.concat([pooled, pd.DataFrame(fractions.astype(np.float32), columns=list(FRACTIONS))], axis=1)
    return pooled


def protein_owners(fields: pd.DataFrame) -> pd.DataFrame:
    """Return one row per antibody: antibody, sheet_labels (all labels of its fields), n_fields."""
    known = fields[fields["antibody"].fillna("") != ""]
    rows = [
        {
            "antibody": antibody,
            "sheet_labels": unite_labels(group["sheet_labels"]),
            "n_fields": len(group),
        }
        for antibody, group in known.groupby("antibody", sort=True)
    ]
    return pd.DataFrame(rows, columns=["antibody", "sheet_labels", "n_fields"])


def aggregate(
    files: CollectionFiles,
    out_dir: Path,
    prototypes: np.ndarray | None = None,
    outputs: Sequence[str] = PROBABILITIES,
    columns: Path | None = None,
) -> None:
    """Join the shards of a collection into cells.parquet, fields.parquet, proteins.parquet and cells.h5ad.

    cells.parquet keeps network_0..network_18, leaned_0..leaned_18 and mixture_0..mixture_18 of every cell if the
    predictions have them. Every field has a row in fields.parquet, including rejected ones; proteins.parquet has a row
    for each known antibody. ``shard`` and ``row`` of cells.parquet say which row of which shard's predictions holds the
    embedding of a cell.

    prototypes: (19, 19) float64, mean ``outputs`` of cells of known class, see ``fractions.read_prototypes``
    columns: the table of the other columns of the sheet (``columns.read_columns``), which come last in fields.parquet
    and in obs of cells.h5ad

    Raises ConservationError, naming field and cell, if the tables do not hold the same cells, ValueError without any
    shard, and TableError if a shard has no annotation of a field.
    """
    if not files.shards:
        raise ValueError("there is no shard to aggregate")
    cell_parts, field_parts, obs_parts = [], [], []
    for shard in track(files.shards, what="shards joined"):
        said = read_annotations([files.path("annotations", shard)])
        cell_table = annotate(pq.read_table(files.path("cells", shard)), said)
        table = cell_table.to_pandas()
        predicted = files.path("predictions", shard)
        outputs_of_cell = [*PROBABILITIES, *optional_outputs(predicted)]
        names = ["field", "cell", "labels", *outputs_of_cell]
        predictions = pq.read_table(predicted, columns=names).to_pandas()
        fields = _read_fields(files.path("fields", shard), said)
        check_conserved(table, predictions, str(predicted))
        check_field_counts(fields, table)
        cell_parts.append(
            predictions.assign(shard=shard, row=np.arange(len(predictions), dtype=np.int32))[
                ["field", "cell", "shard", "row", "labels", *outputs_of_cell]
            ]
        )
        field_parts.append(fields.assign(shard=shard))
        obs_parts.append(cell_table.drop_columns([name for name in ("rle",) if name in cell_table.column_names]))
    cells = pd.concat(cell_parts, ignore_index=True)
    fields = pd.concat(field_parts, ignore_index=True)
    check_field_counts(fields, cells)
    write_table(out_dir / "cells.parquet", cells)
    pooled = pooled_calls(cells, fields.rename(columns={"n_cells": "n_segmented"}), "field", prototypes, outputs)
    pooled_fields = pa.Table.from_pandas(pooled.drop(columns="n_segmented"), preserve_index=False)
    of_sheet = read_columns(columns)
    write_table(out_dir / "fields.parquet", add_columns(pooled_fields.replace_schema_metadata(), of_sheet))
    owners = protein_owners(fields)
    antibody = fields.set_index("field")["antibody"]
    of_protein = cells.assign(antibody=antibody.reindex(cells["field"]).to_numpy())
    of_protein = of_protein[of_protein["antibody"] != ""]
    write_table(out_dir / "proteins.parquet", pooled_calls(of_protein, owners, "antibody", prototypes, outputs))
    # Arrow keeps the types of a shard without cells, which pandas would guess.
    obs = to_frame(add_columns(pa.concat_tables(obs_parts, promote_options="default"), of_sheet))
    obs = obs.rename(columns={"labels": "sheet_labels"})
    write_h5ad(files.of_shards("predictions"), cells, obs, out_dir / "cells.h5ad")
    log.info("%d cells of %d fields, %d proteins", len(cells), len(fields), len(owners))


def optional_outputs(predictions: Path) -> list[str]:
    """Return the columns of predictions that only some models or settings have, and a table of predictions has."""
    present = pq.read_schema(predictions).names
    return [name for name in (*NETWORK, *LEANED, *MIXTURES) if name in present]


def _read_fields(path: Path, said: Mapping[str, Mapping[str, str]] | None = None) -> pd.DataFrame:
    """Read a field table; the sheet's labels become sheet_labels, missing optional columns empty strings."""
    table = pq.read_table(path)
    table = (table if said is None else annotate(table, said)).to_pandas().rename(columns={"labels": "sheet_labels"})
    of_sheet = [] if said is None else ["sheet_labels", "antibody", "cell_line"]
    for column in (*of_sheet, "reason", "stage"):
        table[column] = table[column].fillna("") if column in table else ""
    kept = ["field", *of_sheet, "height", "width", "status", "stage", "reason", "n_cells"]
    missing = [column for column in kept if column not in table]
    if missing:
        raise ValueError(f"{path}: the field table has no column {missing[0]}")
    return table[kept]


def write_h5ad(predictions: Sequence[Path], cells: pd.DataFrame, obs: pd.DataFrame, path: Path) -> None:
    """Write embeddings, probabilities and cell table as AnnData, one shard's embeddings in memory at a time.

    X is the embedding (float32); obs is the cell table with the called labels, indexed "field:cell"; obsm holds
    probabilities (n, 19), network_probabilities (n, 19) if they are fused, with a weight of the field
    leaned_probabilities (n, 19), X_pca (up to 50 components, fitted on at most 20,000 cells) and spatial (centroid x, y
    in px); uns holds the names of the locations in the order of the probabilities.

    predictions: the tables of the shards
    """
    width = pq.read_schema(predictions[0]).field("embedding").type.list_size
    obs = obs.copy()
    obs.index = pd.Index([f"{name}:{cell}" for name, cell in zip(obs["field"], obs["cell"], strict=True)])
    obs["called_labels"] = cells["labels"].to_numpy()
    likeliest = cells[calling_columns(cells)].to_numpy().argmax(axis=1) if len(cells) else []
    obs["called"] = pd.Categorical(np.array(NAMES)[likeliest], categories=list(NAMES))
    for column in obs.select_dtypes("object").columns:
        obs[column] = obs[column].fillna("").astype(str).astype("category")
    obsm = group_probabilities(cells)
    if {"centroid_x", "centroid_y"} <= set(obs.columns):
        obsm["spatial"] = obs[["centroid_x", "centroid_y"]].to_numpy(np.float32)
    obsm["X_pca"] = _principal_components(predictions, len(obs), width)
    table = anndata.AnnData(
        obs=obs,
        var=pd.DataFrame(index=[f"embedding_{index}" for index in range(width)]),
        obsm=obsm,
        uns={
            "locations": np.array(NAMES, dtype=object),
            "called_colors": np.array([location.colour for location in LOCATIONS], dtype=object),
        },
    )
    with atomic_path(path) as temporary:
        table.write_h5ad(temporary, compression="gzip", compression_opts=1)
        with h5py.File(temporary, "r+") as file:
            if "X" in file:
                del file["X"]
            stored = {"chunks": (min(len(obs), 1024), width), **_COMPRESSION} if len(obs) else {}
            data = file.create_dataset("X", (len(obs), width), "float32", **stored)
            data.attrs["encoding-type"], data.attrs["encoding-version"] = "array", "0.2.0"
            start = 0
            for block in map(read_embeddings, predictions):
                data[start : start + len(block)] = block
                start += len(block)


def _principal_components(predictions: Sequence[Path], n_cells: int, width: int) -> np.ndarray:
    """Return (n_cells, up to 50) float32 principal components, fitted on a fixed random sample of the cells."""
    n_components = min(_PCA_COMPONENTS, n_cells - 1, width)
    if n_components < 1:
        return np.zeros((n_cells, 0), np.float32)
    chosen = np.zeros(n_cells, bool)
    chosen[np.random.default_rng(0).permutation(n_cells)[:_PCA_SAMPLE]] = True
    sample, start = [], 0
    for block in map(read_embeddings, predictions):
        sample.append(block[chosen[start : start + len(block)]])
        start += len(block)
    model = PCA(n_components, svd_solver="auto", random_state=0).fit(np.concatenate(sample))
    return np.concatenate(
        [model.transform(block).astype(np.float32) for block in map(read_embeddings, predictions) if len(block)]
    )


def write_submission(files: CollectionFiles, path: Path) -> None:
    """Write the Kaggle table ID,ImageWidth,ImageHeight,PredictionString of a collection, shard by shard.

    Every cell is written once for each of the 19 classes as "class confidence mask", fields and cells in the order of
    their tables. Every field has a row, with an empty PredictionString if it has no cells or was rejected; the size of
    an image that could not be read is 0. Memory holds one shard.

    Raises ConservationError if cells and predictions differ or a field is in two shards, and ValueError naming a field
    table that lacks a column.
    """
    seen: set[str] = set()
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ID", "ImageWidth", "ImageHeight", "PredictionString"])
        for shard in track(files.shards, what="shards submitted"):
            table = pq.read_table(files.path("cells", shard), columns=["field", "cell", "rle"]).to_pandas()
            predicted = files.path("predictions", shard)
            columns = calling_columns(pq.read_schema(predicted).names)
            predictions = pq.read_table(predicted, columns=["field", "cell", *columns]).to_pandas()
            fields = _read_fields(files.path("fields", shard))
            check_conserved(table, predictions, str(predicted))
            check_field_counts(fields, table)
            strings = prediction_strings(table, predictions)
            sizes = zip(fields["field"], fields["width"].fillna(0), fields["height"].fillna(0), strict=True)
            for name, width, height in sizes:
                if name in seen:
                    raise ConservationError(f"field {name}: is in two shards")
                seen.add(name)
                writer.writerow([name, int(width), int(height), strings.get(name, "")])


def prediction_strings(cells: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Return the PredictionString of each field.

    Confidences are the shortest decimals that read back as the same float32.

    cells: field, rle
    predictions: p_0..p_18, or leaned_0..leaned_18 if it has them; same rows
    """
    words: dict[str, list[str]] = {}
    p = predictions[calling_columns(predictions)].to_numpy(np.float32)
    for name, counts, values in zip(cells["field"], cells["rle"], p, strict=True):
        mask = rle.to_kaggle(counts)
        triples = words.setdefault(name, [])
        for index, value in enumerate(values):
            triples.append(f"{index} {np.format_float_positional(value, trim='-')} {mask}")
    return {name: " ".join(triples) for name, triples in words.items()}
