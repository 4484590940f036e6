"""Which fields and cells of a collection a network has seen, by the digests of what trained it."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.spatial import cKDTree

from hpaloc.classes import COLOURS
from hpaloc.columns import columns_of, read_columns
from hpaloc.delimited import letters_of
from hpaloc.grouping import group_fields, near_duplicates
from hpaloc.ids import alike
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.seen.record import Seen, sort_seen
from hpaloc.tables import REFERENCE_COLOURS, are_crops
from hpaloc.unknown_values import is_unknown

# A row per field (cell 0) or single cell that training has seen, and by what it is known.
LEFT_OUT = pa.schema([("field", pa.string()), ("cell", pa.int32()), ("kind", pa.string())])

# Sheets name the column of the gene in several ways.
_GENE = {"gene", "genes", "genename", "genesymbol", "geneid", "ensembl", "ensemblid", "ensemblgeneid"}
_HASHES = [f"hash_{colour}" for colour in REFERENCE_COLOURS]
# A cell is described by its size and the light of each reference colour, which turning and mirroring do not change, and
# an outline that takes in more of the background hardly. Two pictures of one cell differ by less than this, in the root
# mean square of the description, by the number of colours that both have; with blue alone, too many cells are alike.
# docs/evaluation.md has what was measured.
_OF_SIZE, _OF_COLOUR = 2, 4
_SAME_CELL = {2: 0.018, 3: 0.03}
# Descriptions are stored in steps of this size.
_STEP = 0.001
_LACKING = np.iinfo(np.int16).min


def _digest(*texts: str) -> int:
    content = "\0".join(alike(text) for text in texts).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def _digests(texts: Iterable[str]) -> np.ndarray:
    return np.array([_digest(text) for text in texts], np.uint64)


def _criterion(column: str) -> str:
    letters = letters_of(column)
    return "gene" if letters in _GENE else letters


def _known_values(fields: pd.DataFrame, columns: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the digest of the value of each field in each column of its sheet, by the name of the column.

    fields: with the annotations of the sheet
    columns: (n rows) the other columns of the sheet, as text, in the order of ``fields``
    """
    found = {}
    for column, texts in {**{name: fields[name] for name in ("antibody", "cell_line")}, **columns}.items():
        known = [isinstance(text, str) and text != "" and not is_unknown(text) for text in texts]
        digests = [_digest(_criterion(column), text) if here else None for text, here in zip(texts, known, strict=True)]
        found[column] = pd.Series(digests, dtype="UInt64")
    return found


def _hashes(fields: pd.DataFrame) -> np.ndarray:
    return np.stack([fields[name].fillna(0).to_numpy(np.uint64) for name in _HASHES], axis=1)


def read_collection(files: CollectionFiles) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Read the cells and fields of a collection, and the other columns of its sheet as text, for ``find_seen``."""
    annotations = files.of_shards("annotations")
    cells, fields = (
        read(files.of_shards(kind), annotations) for kind, read in (("cells", read_cells), ("fields", read_fields))
    )
    path = files.path("columns")
    columns = read_columns(path if path.exists() else None, as_text=True)
    # Without any column, the table has no rows either.
    return cells, fields, columns_of(fields["field"].tolist(), columns).to_pandas().reindex(fields.index)


def describe_cells(cells: pd.DataFrame, fields: pd.DataFrame) -> np.ndarray:
    """Describe each cell by its size and by the light of its reference colours, whichever way it is turned.

    cells, fields: columns of CELLS and FIELDS
    Returns (n, 14) int16: weighted logarithms in steps of 0.001; the least int16 for a colour that is lacking, and for
    all of a ready-made crop.
    """
    # Levels in units of 8 bits, so that a field may be stored with 8 or with 16.
    unit = cells["field"].map(fields.set_index("field")["dtype"]).map({"uint8": 1.0, "uint16": 257.0}).to_numpy(float)
    area = np.log(cells["area_um2"].to_numpy(float))
    nucleus = np.log(np.maximum(cells["nucleus_fraction"].fillna(0).to_numpy(float), 0.01))
    # The outlines of two pictures of a cell differ more than their nuclei, and with them means over the cell.
    described = [0.3 * area, area + nucleus]
    for colour in REFERENCE_COLOURS:
        columns = [f"{colour}_{name}" for name in ("nucleus_mean", "nucleus_std", "p99", "cell_mean")]
        light = np.log(np.maximum(cells[columns].fillna(0).to_numpy(float) / unit[:, None], 1))
        light[:, 3] += 0.6 * area
        # Of a crop, neither the size of the cell nor the light of its nucleus is known, and many crops would be alike.
        light[cells[f"{colour}_cell_mean"].isna() | are_crops(cells)] = np.nan
        described += list((light * (1, 1, 0.7, 0.7)).T)
    steps = np.stack(described, axis=1) / _STEP
    return np.where(np.isnan(steps), _LACKING, np.rint(steps)).astype(np.int16)


def note_seen(
    cells: pd.DataFrame, fields: pd.DataFrame, columns: pd.DataFrame, examples: pd.DataFrame, group_by: Sequence[str]
) -> Seen:
    """Return what a training has seen of a collection: the fields that have an example of either part.

    cells, fields, columns: from ``read_collection``
    examples: the table of ``curation.curate``
    group_by: the columns whose values are kept, besides antibodies and genes
    """
    used = fields["field"].isin(examples["field"]).to_numpy()
    fields, columns = fields[used].reset_index(drop=True), columns[used].reset_index(drop=True)
    asked = {"antibody", "gene", *map(_criterion, group_by)}
    values = [of_column for name, of_column in _known_values(fields, columns).items() if _criterion(name) in asked]
    images = [fields[f"digest_{colour}"] for colour in COLOURS]
    cells = cells[cells["field"].isin(fields["field"])]
    return sort_seen(
        Seen(
            ids=_digests(fields["field"]),
            images=pd.concat(images).dropna().to_numpy(np.uint64),
            hashes=_hashes(fields),
            values=pd.concat(values).dropna().to_numpy(np.uint64),
            cells=describe_cells(cells, fields),
        )
    )


def find_seen(
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    columns: pd.DataFrame,
    seen: Seen,
    group_by: Sequence[str],
    threads: int = 1,
) -> pd.DataFrame:
    """Find the fields and cells of a collection that a network has seen, or that are of a group that it has seen.

    A field is known by its id, by the pixels of a channel, as a near-duplicate, by its antibody, gene or another value
    of a criterion of groups, by more than half of its cells, or because its group has a field that is known.

    cells, fields, columns: from ``read_collection``
    group_by: the columns by which fields are of one group, besides antibodies, genes and near-duplicates

    Returns a table LEFT_OUT: the fields, each under the first kind that applies, and the single cells of other fields.
    """
    kind = np.full(len(fields), "", object)

    def mark(which: np.ndarray, name: str) -> None:
        kind[(kind == "") & which] = name

    mark(np.isin(_digests(fields["field"]), seen.ids), "id")
    for colour in COLOURS:
        digests = fields[f"digest_{colour}"]
        mark(digests.notna().to_numpy() & np.isin(digests.fillna(0).to_numpy(np.uint64), seen.images), "same images")
    mark(_near(_hashes(fields), seen.hashes), "near-duplicate")
    values = _known_values(fields, columns)
    for column, digests in values.items():
        known = digests.notna().to_numpy() & np.isin(digests.fillna(0).to_numpy(np.uint64), seen.values)
        mark(known, "gene" if _criterion(column) == "gene" else column)
    same = _same_cells(describe_cells(cells, fields), seen.cells, threads)
    share = pd.Series(same).groupby(cells["field"].to_numpy()).mean()
    mark(fields["field"].map(share).fillna(0).to_numpy(np.float64) > 0.5, "same cells")
    asked = {"antibody", "gene", *map(_criterion, group_by)}
    criteria = {name: own for name, own in values.items() if _criterion(name) in asked}
    table = fields[["field", *_HASHES]].assign(**criteria)
    groups, _ = group_fields(table, [*criteria, "duplicates"])
    mark(np.isin(groups, groups[kind != ""]), "group")
    of_fields = pd.DataFrame({"field": fields["field"], "cell": 0, "kind": kind})[kind != ""]
    single = cells.loc[same, ["field", "cell"]].assign(kind="same cell")
    return pd.concat([of_fields, single[~single["field"].isin(of_fields["field"])]], ignore_index=True)


def _near(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of the fields have a near-duplicate among others, (n,) bool.

    hashes: (n, 3), others: (m, 3) uint64, 0 for a colour that is lacking
    """
    found = np.zeros(len(hashes), bool)
    for rows, of_others, colours in _by_colours(hashes != 0, others != 0):
        pairs = near_duplicates(np.concatenate([hashes[rows], others[of_others]])[:, colours])
        across = pairs[(pairs[:, 0] < len(rows)) & (pairs[:, 1] >= len(rows))]
        found[rows[across[:, 0]]] = True
    return found


def _same_cells(cells: np.ndarray, others: np.ndarray, threads: int) -> np.ndarray:
    """Return which cells are among others, (n,) bool; (n, 14) and (m, 14) int16 as ``describe_cells`` returns them."""
    found = np.zeros(len(cells), bool)
    known, of_others = (table[:, _OF_SIZE::_OF_COLOUR] != _LACKING for table in (cells, others))
    for rows, rows_of_others, colours in _by_colours(known, of_others):
        if colours.sum() not in _SAME_CELL:
            continue
        columns = np.concatenate([np.ones(_OF_SIZE, bool), np.repeat(colours, _OF_COLOUR)])
        reach = _SAME_CELL[int(colours.sum())] / _STEP * np.sqrt(columns.sum())
        tree = cKDTree(others[rows_of_others][:, columns].astype(np.float64))
        near, _ = tree.query(cells[rows][:, columns].astype(np.float64), distance_upper_bound=reach, workers=threads)
        found[rows] |= np.isfinite(near)
    return found


def _by_colours(known: np.ndarray, of_others: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows, rows of others and the colours that all of them have, for each pair of sets of colours.

    known, of_others: (n, 3) and (m, 3) bool
    """
    for own in np.unique(known, axis=0):
        for other in np.unique(of_others, axis=0):
            if (own & other).any():
                rows, others = (
                    np.flatnonzero((table == has).all(axis=1)) for table, has in ((known, own), (of_others, other))
                )
                yield rows, others, own & other
