"""Which cell is which true cell: true cells read, their masks laid over those of the pipeline, their labels carried."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpaloc.files import spelled_as_on_disk
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import true_mask_states, unchanged
from hpaloc.masks import MaskError, draw, read_mask
from hpaloc.progress import log, track
from hpaloc.truth import read_true_cells

# A cell is taken for the true cell it shares more than half with; above 0.5 no second one can exist.
MATCHING_IOU = 0.5

_TYPES = {"field": object, "cell": np.int64, "truth_cell": np.int64, "iou": np.float64}


def find_overlaps(predicted: np.ndarray, truth: np.ndarray) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Find every pair of a predicted and a true cell that share a pixel.

    ``predicted`` and ``truth`` are (H, W) label images of an integer type, 0 = background. Returns one row a pair,
    ordered by ``cell`` then ``truth_cell``: cell int64, truth_cell int64, iou float64 (intersection over union); and
    the ids that are in each of the images, (n,) int64. Raises ValueError where the shapes differ.
    """
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ValueError(f"label images of shapes {predicted.shape} and {truth.shape} cannot be compared")
    n_predicted, n_truth = (int(image.max(initial=0)) + 1 for image in (predicted, truth))
    # The narrowest type that holds a pair id: the comparison of neighbours below is bound by memory.
    pair_type = np.uint16 if n_predicted * n_truth <= 1 << 16 else np.uint64
    pair = np.multiply(predicted.ravel(), n_truth, dtype=pair_type, casting="unsafe")
    np.add(pair, truth.ravel(), out=pair, dtype=pair_type, casting="unsafe")
    # Label images are long runs of one pair, so areas are sums over runs and not over pixels.
    start = np.concatenate(([0], np.flatnonzero(pair[1:] != pair[:-1]) + 1)) if pair.size else np.zeros(0, np.int64)
    length = np.diff(start, append=pair.size)
    code, run = np.unique(pair[start], return_inverse=True)
    shared = np.bincount(run, weights=length, minlength=len(code))
    cell, truth_cell = (part.astype(np.int64) for part in np.divmod(code, pair_type(n_truth)))

    predicted_ids, which_predicted = np.unique(cell, return_inverse=True)
    truth_ids, which_truth = np.unique(truth_cell, return_inverse=True)
    predicted_area = np.bincount(which_predicted, weights=shared)[which_predicted]
    truth_area = np.bincount(which_truth, weights=shared)[which_truth]
    iou = shared / (predicted_area + truth_area - shared)
    both = (cell > 0) & (truth_cell > 0)
    pairs = pd.DataFrame({"cell": cell[both], "truth_cell": truth_cell[both], "iou": iou[both]})
    return pairs, predicted_ids[predicted_ids > 0], truth_ids[truth_ids > 0]


@dataclass(frozen=True)
class Matches:
    """The overlap of predicted and true cells of many fields.

    pairs: field str, cell int64, truth_cell int64, iou float64, one row an overlapping pair.
    predicted, truth: field str, cell int64, every cell present in the predicted and in the true masks.
    """

    pairs: pd.DataFrame
    predicted: pd.DataFrame
    truth: pd.DataFrame


def match_fields(
    fields: Iterable[str], read: Callable[[str], tuple[np.ndarray | None, np.ndarray]], threads: int = 1
) -> Matches:
    """Overlay predicted and true label images of many fields, ``threads`` fields at a time.

    ``read`` gives the (predicted, true) label images of a field, see ``find_overlaps``: both (H, W) integers, 0 the
    background; a predicted image of None is a field without any predicted cell, such as a rejected one. Raises
    ValueError naming the field where the two differ in shape.
    """
    names = list(fields)

    def overlay(name: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        predicted, truth = read(name)
        try:
            pairs, *ids = find_overlaps(np.zeros_like(truth) if predicted is None else predicted, truth)
        except ValueError as error:
            raise ValueError(f"field {name}: {error}") from error
        of_predicted, of_truth = (pd.DataFrame({"field": name, "cell": own}) for own in ids)
        return pairs.assign(field=name), of_predicted, of_truth

    with ThreadPoolExecutor(threads) as pool:
        found = list(track(pool.map(overlay, names), len(names), "fields matched"))
    tables = []
    for part, columns in enumerate((list(_TYPES), ["field", "cell"], ["field", "cell"])):
        none = pd.DataFrame(columns=columns).astype({column: _TYPES[column] for column in columns})
        tables.append(pd.concat([none, *(own[part] for own in found)], ignore_index=True))
    return Matches(*tables)


def pair_cells(pairs: pd.DataFrame, threshold: float = MATCHING_IOU) -> pd.DataFrame:
    """Give each predicted cell at most one true cell, and each true cell at most one predicted cell.

    Pairs below ``threshold`` are dropped; of the rest the best overlap wins, then the lowest ids. Columns as in
    ``Matches.pairs``.
    """
    kept = pairs[pairs["iou"] >= threshold].sort_values(
        ["iou", "field", "cell", "truth_cell"], ascending=[False, True, True, True]
    )
    # Where cells of one image overlap, taking the best first and dropping both partners from the rest is greedy;
    # in label images every row here is already alone.
    taken: set[tuple[str, str, int]] = set()
    keep = np.ones(len(kept), bool)
    if kept.duplicated(["field", "cell"]).any() or kept.duplicated(["field", "truth_cell"]).any():
        for row, (name, cell, truth_cell) in enumerate(
            zip(kept["field"], kept["cell"], kept["truth_cell"], strict=True)
        ):
            sides = {("p", name, cell), ("t", name, truth_cell)}
            keep[row] = not (sides & taken)
            if keep[row]:
                taken |= sides
    return kept[keep].sort_values(["field", "cell"], ignore_index=True)


def carry_labels(truth: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Give each predicted cell that has a true partner, see ``pair_cells``, the labels of that true cell.

    truth: field, cell, labels, one row a true cell; pairs: as in ``Matches``. Returns field, cell, truth_cell, iou,
    labels, ordered by field and cell.
    """
    return pair_cells(pairs).merge(
        truth[["field", "cell", "labels"]].rename(columns={"cell": "truth_cell"}),
        on=["field", "truth_cell"],
        validate="one_to_one",
    )


def read_truth(files: CollectionFiles, fields: Iterable[str]) -> pd.DataFrame:
    """Read the true cells of some fields: return field str, cell int64, labels (label string).

    Those of other fields are left out, and how many is logged.
    """
    rows = [
        (field, cell, labels)
        for path in files.true_cells
        for field, of_field in read_true_cells(path).items()
        for cell, labels in of_field.items()
    ]
    truth = pd.DataFrame(rows, columns=["field", "cell", "labels"]).astype({"cell": np.int64})
    here = truth["field"].isin(list(fields))
    if not here.all():
        first = truth["field"][~here].iloc[0]
        tell, count = (log.info, (~here).sum()) if here.any() else (log.warning, f"all {len(truth)}")
        tell("%s true cells are of fields that are not in this collection, such as %s", count, first)
    return truth[here].reset_index(drop=True)


def match_truth(
    files: CollectionFiles,
    truth: pd.DataFrame,
    shard_of: Mapping[str, str],
    read_predicted: Callable[[str], np.ndarray | None],
    threads: int = 1,
) -> Matches:
    """Lay the true masks of the fields of ``truth`` over their predicted ones, see ``match_fields``.

    truth: as ``read_truth`` gives it; shard_of: the name of each field's shard; read_predicted: gives a field's
    predicted (H, W) label image of an integer type, or None. Raises FileNotFoundError naming a field whose true mask
    is absent, MaskError naming a true mask of another size than the field, ChangedError naming one that is another
    than was planned, and ValueError naming a true cell that its mask lacks.
    """
    states = true_mask_states(files.true_states)

    def read(name: str) -> tuple[np.ndarray | None, np.ndarray]:
        path = spelled_as_on_disk(files.true_masks.format(id=name, shard=shard_of[name]))
        with unchanged({name: path}, states):
            if not os.path.isfile(path):
                raise FileNotFoundError(f"field {name}: no true mask at {path}")
            true = read_mask(path)
        predicted = read_predicted(name)
        if predicted is not None and predicted.shape != true.shape:
            raise MaskError(f"{path}: the mask is {true.shape}, the field {name} is {predicted.shape}")
        return predicted, true

    matches = match_fields(truth["field"].unique(), read, threads)
    check_present(
        truth, matches.truth, f"true cell that {files.true_masks} lacks; take it out of the table of true cells"
    )
    return matches


def check_present(cells: pd.DataFrame, known: pd.DataFrame, what: str) -> None:
    """Raise ValueError naming the first of the ``cells`` (field, cell) that is not among the ``known`` ones.

    what: what such a cell is called.
    """
    wanted, present = (pd.MultiIndex.from_frame(table[["field", "cell"]]) for table in (cells, known))
    absent = wanted[~wanted.isin(present)]
    if len(absent):
        raise ValueError(f"field {absent[0][0]}, cell {absent[0][1]}: {what} ({len(absent)} such cells)")


def read_true_labels(cells: pd.DataFrame, fields: pd.DataFrame, files: CollectionFiles) -> pd.DataFrame:
    """Read a collection's truth per cell and carry it over to the pipeline's cells, see ``carry_labels``.

    cells, fields: as ``tables.read_cells`` and ``tables.read_fields`` give them, with rle and shard, which counts
    those of ``files``. Returns field, cell, labels; a cell without a true partner has no row. Raises as ``match_truth``
    does.
    """
    truth = read_truth(files, fields["field"])
    # A field without cells has nothing that could get a label, and its true mask need not be read.
    truth = truth[truth["field"].isin(cells["field"])]
    shard_of = {field: files.shards[shard] for field, shard in zip(fields["field"], fields["shard"], strict=True)}
    members = cells.groupby("field")

    def draw_cells(name: str) -> np.ndarray:
        own = members.get_group(name)
        masks = dict(zip(own["cell"].tolist(), own["rle"], strict=True))
        return draw(masks, int(own["height"].iloc[0]), int(own["width"].iloc[0]))

    matches = match_truth(files, truth, shard_of, draw_cells)
    return carry_labels(truth, matches.pairs)[["field", "cell", "labels"]]
