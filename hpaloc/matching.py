"""Matching of true cells to those of the pipeline, by the overlap of their masks, and carrying over of their labels."""

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpaloc.files import spelled_as_on_disk
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import true_mask_files, unchanged
from hpaloc.masks import MaskError, draw, read_mask
from hpaloc.progress import log, track
from hpaloc.truth import read_true_cells

# Above an intersection over union of 0.5 a cell matches only one true cell.
MATCHING_IOU = 0.5

_TYPES = {"field": object, "cell": np.int64, "truth_cell": np.int64, "iou": np.float64}


def find_overlaps(predicted: np.ndarray, truth: np.ndarray) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Find every pair of a predicted and a true cell that share a pixel.

    predicted, truth: (H, W) label images of an integer type, 0 = background
    Returns a row per pair, sorted by cell and truth_cell: cell int64, truth_cell int64, iou float64 (intersection over
    union); and the ids in each of the images, (n,) int64.
    Raises ValueError if the shapes differ.
    """
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ValueError(f"label images of shapes {predicted.shape} and {truth.shape} cannot be compared")
    n_predicted, n_truth = (int(image.max(initial=0)) + 1 for image in (predicted, truth))
    # The narrowest type for a pair's id: the comparison of neighbours below is bound by memory.
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

    pairs: a row per overlapping pair: field str, cell int64, truth_cell int64, iou float64
    predicted, truth: a row per cell of the predicted and of the true masks: field str, cell int64
    """

    pairs: pd.DataFrame
    predicted: pd.DataFrame
    truth: pd.DataFrame


def match_fields(
    fields: Iterable[str], read: Callable[[str], tuple[np.ndarray | None, np.ndarray]], threads: int = 1
) -> Matches:
    """Overlay predicted and true label images of many fields, ``threads`` fields at a time.

    read: returns the (predicted, true) label images of a field, both (H, W) of an integer type, 0 = background; None as
    predicted image means that the field has no predicted cells, such as a rejected one
    Raises ValueError naming the field whose two images differ in shape.
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

    Pairs below ``threshold`` are dropped; among the rest the best overlap wins, then the lowest ids.

    pairs: as ``Matches.pairs``
    Returns the rows of ``pairs`` that are kept.
    """
    kept = pairs[pairs["iou"] >= threshold].sort_values(
        ["iou", "field", "cell", "truth_cell"], ascending=[False, True, True, True]
    )
    # If cells of one image overlap, the best pair is taken first and its partners leave the others (greedy); in label
    # images no cell is in two rows here.
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
    """Give each predicted cell that has a true partner (``pair_cells``) the labels of that true cell.

    truth: a row per true cell: field, cell, labels
    pairs: as ``Matches.pairs``
    Returns field, cell, truth_cell, iou, labels, sorted by field and cell.
    """
    return pair_cells(pairs).merge(
        truth[["field", "cell", "labels"]].rename(columns={"cell": "truth_cell"}),
        on=["field", "truth_cell"],
        validate="one_to_one",
    )


def read_truth(files: CollectionFiles, fields: Iterable[str]) -> pd.DataFrame:
    """Read the true cells of some fields, and log how many of other fields are ignored.

    Returns field str, cell int64, labels (label string).
    """
    rows = [
        (field, cell, labels)
        for path in files.true_cells
        for field, of_field in read_true_cells(path, files.of_2018).items()
        for cell, labels in of_field.items()
    ]
    truth = pd.DataFrame(rows, columns=["field", "cell", "labels"]).astype({"cell": np.int64})
    here = truth["field"].isin(list(fields))
    if not here.all():
        first = truth["field"][~here].iloc[0]
        tell, count = (log.info, (~here).sum()) if here.any() else (log.warning, f"all {len(truth)}")
        tell("%s true cells belong to fields that are not in this collection, such as %s", count, first)
    return truth[here].reset_index(drop=True)


def match_truth(
    files: CollectionFiles,
    truth: pd.DataFrame,
    shard_of: Mapping[str, str],
    read_predicted: Callable[[str], np.ndarray | None],
    threads: int = 1,
) -> Matches:
    """Overlay the true masks of the fields of ``truth`` with their predicted ones, as ``match_fields`` does.

    truth: from ``read_truth``
    shard_of: {field: name of its shard}
    read_predicted: returns a field's predicted (H, W) label image of an integer type, or None
    Raises FileNotFoundError naming a field whose true mask is absent, MaskError naming a true mask of another size than
    its field, ChangedError naming one that changed after planning, and ValueError naming a true cell that is not in its
    mask.
    """
    planned = true_mask_files(files.true_states)

    def read(name: str) -> tuple[np.ndarray | None, np.ndarray]:
        if name in planned:
            path, state = planned[name]
        else:
            path, state = spelled_as_on_disk(files.true_masks.format(id=name, shard=shard_of[name])), None
        with unchanged({name: path}, {name: state} if state else {}):
            if not os.path.isfile(path):
                raise FileNotFoundError(f"field {name}: there is no true mask at {path}")
            true = read_mask(path)
        predicted = read_predicted(name)
        if predicted is not None and predicted.shape != true.shape:
            raise MaskError(f"{path}: the mask is {true.shape}, but the field {name} is {predicted.shape}")
        return predicted, true

    matches = match_fields(truth["field"].unique(), read, threads)
    check_present(
        truth, matches.truth, f"true cell that is not in {files.true_masks}; remove it from the table of true cells"
    )
    return matches


def check_present(cells: pd.DataFrame, known: pd.DataFrame, what: str) -> None:
    """Raise ValueError naming the first of the ``cells`` (field, cell) that is not among the ``known`` ones.

    what: what the message says of such a cell
    """
    wanted, present = (pd.MultiIndex.from_frame(table[["field", "cell"]]) for table in (cells, known))
    absent = wanted[~wanted.isin(present)]
    if len(absent):
        raise ValueError(f"field {absent[0][0]}, cell {absent[0][1]}: {what} ({len(absent)} such cells)")


def read_true_labels(cells: pd.DataFrame, fields: pd.DataFrame, files: CollectionFiles) -> pd.DataFrame:
    """Read a collection's true cells and carry their labels over to the pipeline's cells, as ``carry_labels`` does.

    cells, fields: from ``joining.read_cells`` and ``joining.read_fields``, of the shards of ``files``
    Returns field, cell, labels; a cell without a true partner has no row.
    Raises the errors of ``match_truth``.
    """
    truth = read_truth(files, fields["field"])
    # In a field without cells nothing could get a label, and its true mask need not be read.
    truth = truth[truth["field"].isin(cells["field"])]
    shard_of = {field: files.shards[shard] for field, shard in zip(fields["field"], fields["shard"], strict=True)}
    members = cells.groupby("field")

    def draw_cells(name: str) -> np.ndarray:
        own = members.get_group(name)
        masks = dict(zip(own["cell"].tolist(), own["rle"], strict=True))
        return draw(masks, int(own["height"].iloc[0]), int(own["width"].iloc[0]))

    matches = match_truth(files, truth, shard_of, draw_cells)
    return carry_labels(truth, matches.pairs)[["field", "cell", "labels"]]
