"""All scores of one collection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.classes import N_CLASSES, NAMES, label_matrix, parse_all, unite_labels
from hpaloc.evaluation.baselines import ALONE, BASELINE_SCORES, compare, score_baselines, tabulate_baselines
from hpaloc.evaluation.calibration import bin_confidences, calibrate, measure_calibration_error
from hpaloc.evaluation.cells import (
    CELL_SCORES,
    count_confusions,
    mean_of_known,
    pick_single_labels,
    score_cells,
    score_rankings,
)
from hpaloc.evaluation.detection import DETECTION_IOU, Convention, list_detections, score_detections, score_masks
from hpaloc.evaluation.label_sets import SET_SCORES, score_classes, score_label_sets
from hpaloc.evaluation.pooled import POOLED_COLUMNS, Owners, measure_owners, score_owners
from hpaloc.leaving_out import cell_index
from hpaloc.matching import Matches, carry_labels, check_present
from hpaloc.progress import log
from hpaloc.resampling import REPLICATES
from hpaloc.tables import LEANED, NETWORK, PROBABILITIES


@dataclass(frozen=True)
class Evaluation:
    """The scores of one collection.

    metrics: the collection's part of metrics.json
    tables: per_class, confusion, reliability, pooled, baselines and scores, see docs/evaluation.md
    cells: the scored cells with their truth (true_labels)
    """

    metrics: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    cells: pd.DataFrame


def evaluate_collection(
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    truth: pd.DataFrame | None = None,
    matches: Matches | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    temperature: float | None = None,
    baselines: Mapping[str, pd.DataFrame] | None = None,
    shares: np.ndarray | None = None,
) -> Evaluation:
    """Score the predictions of one collection.

    truth and matches give per-cell truth; without them the cells of one-label fields inherit that label. A field
    without labels in the sheet has the labels of its true cells.

    cells: field, cell, labels (the called set), p_0..p_18, network_0..network_18 and leaned_0..leaned_18 if there are;
        every predicted cell
    fields: field, sheet_labels (label string or ""), antibody ("" if unknown), every field including rejected ones, as
        ``pooling.aggregate`` writes them
    truth: field, cell, labels
    matches: the masks of the fields in truth
    temperature: of the model, see ``calibration.calibrate``
    baselines: field, cell, p_0..p_18 of every predicted cell by each learned baseline; None if the model has none
    shares: (19,) float, of the locations in the training cells

    Raises ValueError if a true cell is not in the true masks, or if the predicted masks or the predictions of a
    baseline hold other cells than the table of predictions.
    """
    if (truth is None) != (matches is None):
        raise ValueError("per-cell truth needs both the table of true cells and the overlap of the masks")
    labels_of = dict(zip(fields["field"], fields["sheet_labels"].fillna(""), strict=True))
    detected: dict[str, dict[Convention, np.ndarray]] = {}
    outputs = {"": PROBABILITIES} | ({"_leaned": LEANED} if LEANED[0] in cells else {})
    if truth is not None and matches is not None:
        scored, detected = _score_truth(cells[cells["field"].isin(truth["field"])], truth, matches, outputs)
        united = truth.groupby("field")["labels"].agg(unite_labels)
        labels_of |= {name: labels_of.get(name) or labels for name, labels in united.items()}
    else:
        inherited = cells["field"].map(lambda name: labels_of.get(name, ""))
        scored = cells.assign(true_labels=inherited)[(inherited != "") & ~inherited.str.contains("|", regex=False)]
    owners = _list_owners(cells["field"], fields, labels_of)
    labels, called = (label_matrix(parse_all(scored[column])) for column in ("true_labels", "labels"))
    p = _probabilities(scored)
    groups = scored["field"].map(owners["field"].groups).to_numpy()
    every_p = _probabilities(cells)
    scores = {level: score_owners(every_p, own, replicates, seed) for level, own in owners.items()}
    pooled = [measure_owners(every_p, own, seed).assign(level=level) for level, own in owners.items()]
    point = {level: {key: own[key] for key in ("accuracy", "macro_ap")} for level, own in scores.items()}
    metrics: dict[str, Any] = {"n_fields": len(fields), "n_cells": len(cells)}
    for suffix, columns in outputs.items():
        values = scored[list(columns)].to_numpy(np.float64)
        metrics[f"cells{suffix}"] = score_cells(values, labels, groups, replicates, seed)
    single = pick_single_labels(labels)
    one = single >= 0
    learned = {name: _probabilities(_rows_of(scored, table, name)) for name, table in (baselines or {}).items()}
    if NETWORK[0] in scored:
        learned = {ALONE: scored[list(NETWORK)].to_numpy(np.float64), **learned}
    rivals = score_baselines(p, labels, groups, learned, shares, replicates, seed)
    metrics |= {"baselines": rivals, "over_baseline": compare(metrics["cells"], rivals, baselines is not None)}
    metrics["calibration"] = _score_calibration(p[one], single[one], temperature)
    metrics["label_sets"] = score_label_sets(called, labels, groups, replicates, seed)
    metrics |= {"fields": point["field"], "proteins": point.get("protein")}
    if matches is not None:
        for suffix, of_class in detected.items():
            metrics[f"map60{suffix}"] = {name: mean_of_known(values) for name, values in of_class.items()}
        metrics["segmentation"] = score_masks(matches)

    confusion = count_confusions(single[one], p[one].argmax(axis=1))
    tables = {
        "per_class": _per_class(p, labels, called, confusion, detected.get("", {})),
        "confusion": pd.DataFrame(confusion, index=list(NAMES), columns=list(NAMES)).rename_axis("true").reset_index(),
        "reliability": bin_confidences(p[one], single[one]),
        "pooled": pd.concat([table for table in pooled if len(table)] or pooled[:1])[["level", *POOLED_COLUMNS]],
        "baselines": tabulate_baselines(metrics["cells"], rivals, metrics["over_baseline"]),
        "scores": _score_table(metrics, int(one.sum()), len(scored), scores),
    }
    return Evaluation(plain(metrics), tables, scored)


def _score_truth(
    cells: pd.DataFrame, truth: pd.DataFrame, matches: Matches, outputs: Mapping[str, Sequence[str]]
) -> tuple[pd.DataFrame, dict[str, dict[Convention, np.ndarray]]]:
    """Return the cells that match a true cell, with its labels, and the scores of the cells as detections.

    cells: of the fields in ``truth``
    outputs: the columns of probabilities, by the ending of the scores' names
    """
    _check_truth(cells, truth, matches)
    partners = carry_labels(truth, matches.pairs).rename(columns={"labels": "true_labels"})
    known = _of_labelled(cells, truth, matches)
    detected = {
        suffix: score_detections(list_detections(known, columns), truth, matches.pairs)
        for suffix, columns in outputs.items()
    }
    return cells.merge(partners, on=["field", "cell"], validate="one_to_one"), detected


def _rows_of(scored: pd.DataFrame, table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of a baseline's predictions that are of the scored cells, in their order."""
    check_present(scored, table, f"predicted by the network, but not by the baseline {name}")
    return table.iloc[cell_index(table).get_indexer(cell_index(scored))]


def _probabilities(cells: pd.DataFrame) -> np.ndarray:
    return cells[list(PROBABILITIES)].to_numpy(np.float64)


def _score_calibration(p: np.ndarray, single: np.ndarray, temperature: float | None) -> dict[str, float | None]:
    """Return the calibration error of cells with one label, before and after the temperature; None if unknown."""
    before, after = (
        measure_calibration_error(bin_confidences(values, single)) if len(single) and values is not None else None
        for values in (p, calibrate(p, temperature) if temperature else None)
    )
    return {"temperature": temperature, "ece": before, "ece_calibrated": after}


def _list_owners(field: pd.Series, fields: pd.DataFrame, labels_of: Mapping[str, str]) -> dict[str, Owners]:
    """Return the labelled fields of the cells and, if antibodies are known, the labelled proteins."""
    antibody = dict(zip(fields["field"], fields["antibody"].fillna(""), strict=True))
    groups = {name: protein or name for name, protein in antibody.items()}
    owners = {"field": Owners(field, {name: text for name, text in labels_of.items() if text}, groups)}
    protein_of = {name: protein for name, protein in antibody.items() if protein and labels_of[name]}
    proteins: dict[str, str] = {}
    for name, protein in sorted(protein_of.items(), key=lambda pair: pair[1]):
        proteins[protein] = unite_labels([proteins.get(protein, ""), labels_of[name]])
    if proteins:
        owners["protein"] = Owners(field.map(protein_of), proteins, {protein: protein for protein in proteins})
    return owners


def _check_truth(cells: pd.DataFrame, truth: pd.DataFrame, matches: Matches) -> None:
    check_present(truth, matches.truth, "true cell without a true mask")
    check_present(cells, matches.predicted, "predicted cell without a predicted mask")
    check_present(matches.predicted, cells, "predicted mask without a prediction")
    unlabelled = len(matches.truth) - len(truth)
    if unlabelled:
        log.warning("%d cells of the true masks have no label; their detections are not scored", unlabelled)


def _of_labelled(cells: pd.DataFrame, truth: pd.DataFrame, matches: Matches) -> pd.DataFrame:
    """Return the predicted cells that are not a true cell without a label."""
    labelled = pd.MultiIndex.from_frame(truth[["field", "cell"]])
    near = matches.pairs[matches.pairs["iou"] >= DETECTION_IOU]
    without = near[~pd.MultiIndex.from_frame(near[["field", "truth_cell"]]).isin(labelled)]
    return cells[
        ~pd.MultiIndex.from_frame(cells[["field", "cell"]]).isin(pd.MultiIndex.from_frame(without[["field", "cell"]]))
    ]


def _per_class(
    p: np.ndarray,
    labels: np.ndarray,
    called: np.ndarray,
    confusion: np.ndarray,
    detected: Mapping[Convention, np.ndarray],
) -> pd.DataFrame:
    ap, auc = score_rankings(p, labels)
    right, true, likeliest = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame(
            {
                "location": np.arange(N_CLASSES),
                "name": NAMES,
                "n_cells": (labels > 0).sum(axis=0),
                "n_single": true,
                "n_called": likeliest,
                "recall": right / true,
                "precision": right / likeliest,
                "f1": 2 * right / (true + likeliest),
                "ap": ap,
                "auc": auc,
            }
        )
    table = pd.concat([table, score_classes(called, labels)], axis=1)
    for name, values in detected.items():
        table[f"ap60_{name}"] = values
    return table


def _score_table(
    metrics: Mapping[str, Any], n_single: int, n_scored: int, pooled: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """List every score of a collection, one per row: level, score, value, low, high, n."""
    rows: list[tuple[str, str, float | None, float | None, float | None, int | None]] = []
    for level, own, names in (
        ("cell", metrics["cells"], CELL_SCORES),
        ("cell_leaned", metrics.get("cells_leaned"), CELL_SCORES),
        ("label_set", metrics["label_sets"], SET_SCORES),
        *((baseline, scores, BASELINE_SCORES) for baseline, scores in metrics["baselines"].items()),
    ):
        for name in names if own else ():
            low, high = own["ci95"][name] or (None, None)
            n = n_scored if "macro" in name or level == "label_set" else n_single
            rows.append((level, name, own[name], low, high, n))
    rows.append(("cell", "ece_calibrated", metrics["calibration"]["ece_calibrated"], None, None, n_single))
    for level, scores in pooled.items():
        for name in ("accuracy", "macro_ap"):
            low, high = scores["ci95"][name] or (None, None)
            rows.append((level, name, scores[name], low, high, scores["n"][name]))
    for level in ("map60", "map60_leaned", "segmentation"):
        rows += [(level, name, value, None, None, None) for name, value in metrics.get(level, {}).items()]
    return pd.DataFrame(rows, columns=["level", "score", "value", "low", "high", "n"])


def plain(value: Any) -> Any:
    """Convert numbers to the types of JSON; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
