"""Scores of cells against independent implementations: COCO's evaluator, scikit-learn, and plain loops."""

import contextlib
import io
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from coco_masks import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

import hpaloc.evaluation.cells as cells_room
from hpaloc.classes import N_CLASSES, NEGATIVE, format_labels, label_matrix, parse_labels
from hpaloc.controls import control_examples
from hpaloc.evaluation.calibration import bin_confidences, calibrate, measure_calibration_error
from hpaloc.evaluation.cells import CELL_SCORES, score_cells
from hpaloc.evaluation.collection import evaluate_collection
from hpaloc.evaluation.detection import (
    CONVENTIONS,
    Convention,
    list_detections,
    score_detections,
    score_masks,
)
from hpaloc.evaluation.folder import CONTROLS, _match_truth, evaluate
from hpaloc.evaluation.label_sets import SET_SCORES, score_classes, score_label_sets
from hpaloc.evaluation.left_out import SeenError
from hpaloc.evaluation.pooled import measure_pooling
from hpaloc.layout import CollectionFiles
from hpaloc.matching import (
    Matches,
    carry_labels,
    find_overlaps,
    match_fields,
    pair_cells,
    read_true_labels,
    read_truth,
)
from hpaloc.resampling import resampled_groups
from hpaloc.tables import LEANED, PROBABILITIES

CELL_TRUTH = Path(__file__).parents[3] / "shared" / "data" / "cell-truth"
P = list(PROBABILITIES)


def match(masks: dict[str, tuple[np.ndarray | None, np.ndarray]]) -> Matches:
    return match_fields(masks, masks.__getitem__)


def map60(*tables: pd.DataFrame) -> dict[str, float]:
    return {convention: np.nanmean(values) for convention, values in score_detections(*tables).items()}


def with_probabilities(cells: pd.DataFrame, p: np.ndarray) -> pd.DataFrame:
    called = [format_labels([label]) for label in p.argmax(axis=1)]
    return pd.concat([cells.reset_index(drop=True).assign(labels=called), pd.DataFrame(p, columns=P)], axis=1)


def simulated_masks(n_fields: int, seed: int) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], pd.DataFrame]:
    """Fields of discs; the predicted ones are moved, some missing, some added, and numbered otherwise."""
    generator = np.random.default_rng(seed)
    masks, rows = {}, []
    for field in range(n_fields):
        truth, predicted = np.zeros((90, 120), np.uint16), np.zeros((90, 120), np.uint16)
        for slot in range(12):
            y, x = 15 + 30 * (slot // 4), 15 + 30 * (slot % 4)
            if generator.random() < 0.9:
                cv2.circle(truth, (x, y), 11, slot + 1, -1)
            if generator.random() < 0.9:
                shift = generator.integers(-5, 6, 2)
                cv2.circle(predicted, (int(x + shift[0]), int(y + shift[1])), 11, 40 - slot, -1)
        masks[f"f{field}"] = predicted, truth
        sets = [(0,), (0, 16), (5,), (NEGATIVE,), (3, 5, 7)]
        present = np.unique(truth[truth > 0])
        rows += [(f"f{field}", int(cell), format_labels(sets[generator.integers(5)])) for cell in present]
    return masks, pd.DataFrame(rows, columns=["field", "cell", "labels"])


def coco_average_precision(
    masks: dict[str, tuple[np.ndarray, np.ndarray]],
    truth: pd.DataFrame,
    cells: pd.DataFrame,
    convention: str,
) -> np.ndarray:
    """Average precision of each class by COCOeval with one IoU threshold and no limit on detections.

    COCO reads its envelope at fixed recalls. Read at each of the n recalls that n true cells can give, the mean is
    the area at all points. Only fields that have the class are evaluated where absent ones are to be ignored.
    """

    def encode(name: str, side: int, cell: int) -> dict:
        return coco_mask.encode(np.asfortranarray(masks[name][side] == cell, dtype=np.uint8))

    images = [
        {"id": index, "height": mask.shape[0], "width": mask.shape[1]} for index, (_, mask) in enumerate(masks.values())
    ]
    index_of = {name: index for index, name in enumerate(masks)}
    true_shapes = [encode(name, 1, cell) for name, cell in zip(truth["field"], truth["cell"], strict=True)]
    found_shapes = [encode(name, 0, cell) for name, cell in zip(cells["field"], cells["cell"], strict=True)]
    result = np.full(N_CLASSES, np.nan)
    for label in range(N_CLASSES):
        annotations = [
            {"id": row + 1, "image_id": index_of[name], "category_id": label, "iscrowd": 0, "segmentation": shape,
             "area": float(coco_mask.area(shape))}
            for row, (name, text, shape) in enumerate(zip(truth["field"], truth["labels"], true_shapes, strict=True))
            if label in parse_labels(text)
        ]  # fmt: skip
        if not annotations:
            continue
        results = [
            {"image_id": index_of[name], "category_id": label, "segmentation": shape, "score": float(score)}
            for name, score, shape in zip(cells["field"], cells[f"p_{label}"], found_shapes, strict=True)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            gold = COCO()
            gold.dataset = {"images": images, "categories": [{"id": label}], "annotations": annotations}
            gold.createIndex()
            judge = COCOeval(gold, gold.loadRes(results), "segm")
            judge.params.iouThrs = np.array([0.6])
            judge.params.recThrs = np.arange(1, len(annotations) + 1) / len(annotations) - 1e-9
            judge.params.maxDets = [100_000]
            judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
            if convention == "absent_ignored":
                judge.params.imgIds = sorted({annotation["image_id"] for annotation in annotations})
            judge.evaluate()
            judge.accumulate()
        result[label] = judge.eval["precision"][0, :, 0, 0, 0].mean()
    return result


def plain_average_precision(
    found: pd.DataFrame, truth: pd.DataFrame, pairs: pd.DataFrame, convention: str, label: int
) -> float:
    """Average precision of one class by loops over thresholds, detections and true cells."""
    iou = {(row.field, row.cell, row.truth_cell): row.iou for row in pairs.itertuples()}
    true_cells = {(row.field, row.cell) for row in truth.itertuples() if label in parse_labels(row.labels)}
    fields = {field for field, _ in true_cells}
    rows = [
        row
        for row in found.itertuples()
        if row.location == label and (convention == "absent_is_false_positive" or row.field in fields)
    ]
    curve = [(0.0, 1.0)]
    for threshold in sorted({row.confidence for row in rows}, reverse=True):
        accepted = [row for row in rows if row.confidence >= threshold]
        hit = set()
        for row in accepted:
            own = [
                (iou.get((row.field, row.cell, cell), 0.0), -cell) for field, cell in true_cells if field == row.field
            ]
            if own and max(own)[0] >= 0.6:
                hit.add((row.field, -max(own)[1]))
        curve.append((len(hit) / len(true_cells), len(hit) / len(accepted)))
    area = 0.0
    for (before, _), (recall, _) in itertools.pairwise(curve):
        area += (recall - before) * max(precision for other, precision in curve[1:] if other >= recall)
    return area


@given(seed=st.integers(0, 10_000), dtype=st.sampled_from(["uint8", "uint16", "uint32", "int64"]))
@settings(max_examples=40, deadline=None)
def test_overlaps_equal_set_operations(seed: int, dtype: str) -> None:
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 25, 2))
    far = 70_000 if dtype in ("uint32", "int64") else 0
    predicted = (generator.integers(0, 4, shape) * (1 + far)).astype(dtype)
    truth = np.repeat(generator.integers(0, 5, (shape[0], 1)), shape[1], axis=1).astype(np.uint16)
    expected = []
    for cell in np.unique(predicted[predicted > 0]):
        for truth_cell in np.unique(truth[truth > 0]):
            a, b = predicted == cell, truth == truth_cell
            if (a & b).any():
                expected.append((cell, truth_cell, (a & b).sum() / (a | b).sum()))
    found, *ids = find_overlaps(predicted, truth)
    for own, image in zip(ids, (predicted, truth), strict=True):
        assert own.tolist() == np.unique(image[image > 0]).tolist()
    assert [tuple(row) for row in found.itertuples(index=False)] == [pytest.approx(row) for row in expected]


def test_overlaps_of_a_field_without_cells_are_none() -> None:
    empty = np.zeros((4, 5), np.uint16)
    assert len(find_overlaps(empty, empty)[0]) == 0
    assert len(find_overlaps(empty, empty + 1)[0]) == 0


def test_masks_of_different_shapes_name_the_field() -> None:
    with pytest.raises(ValueError, match="field f7: label images of shapes"):
        match({"f7": (np.ones((4, 5), np.uint8), np.ones((5, 4), np.uint8))})


def test_each_cell_has_one_partner_and_the_best_overlap_wins() -> None:
    pairs = pd.DataFrame(
        [("f", 1, 1, 0.6), ("f", 1, 2, 0.9), ("f", 2, 2, 0.7), ("f", 3, 3, 0.49), ("g", 1, 1, 0.5)],
        columns=["field", "cell", "truth_cell", "iou"],
    )
    found = pair_cells(pairs.sample(frac=1, random_state=3))
    assert [tuple(row) for row in found.itertuples(index=False)] == [("f", 1, 2, 0.9), ("g", 1, 1, 0.5)]


def test_segmentation_scores_by_hand() -> None:
    truth, predicted = np.zeros((10, 40), np.uint8), np.zeros((10, 40), np.uint8)
    truth[:, 0:10], truth[:, 10:20], truth[:, 30:40] = 1, 2, 3
    predicted[:, 0:10], predicted[:, 15:25] = 7, 8
    matches = match({"f": (predicted, truth), "rejected": (None, truth)})
    scores = score_masks(matches)
    assert scores == pytest.approx(
        {"precision60": 1 / 2, "recall60": 1 / 6, "f1_60": 2 / 8, "mean_iou": (1 + 1 / 3) / 6}
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_average_precision_equals_coco_on_simulated_masks(convention: Convention) -> None:
    masks, truth = simulated_masks(6, seed=1)
    matches = match(masks)
    generator = np.random.default_rng(2)
    cells = with_probabilities(matches.predicted, generator.random((len(matches.predicted), N_CLASSES)))
    found = score_detections(list_detections(cells), truth, matches.pairs)[convention]
    expected = coco_average_precision(masks, truth, cells, convention)
    assert np.isfinite(expected).sum() == 6
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.fixture(scope="module")
def hand_labelled() -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], pd.DataFrame]:
    if not CELL_TRUTH.is_dir():
        pytest.skip("the hand-labelled fields of ../shared/data/cell-truth are absent")
    fields = {path.name.removesuffix("_cellmask.png") for path in (CELL_TRUTH / "truth_masks").iterdir()}
    truth = read_truth(CollectionFiles("labelled", true_cells=[CELL_TRUTH / "cells.csv"]), fields)
    masks = {
        name: tuple(
            cv2.imread(str(CELL_TRUTH / f"{part}_masks" / f"{name}_cellmask.png"), cv2.IMREAD_UNCHANGED)
            for part in ("predicted", "truth")
        )
        for name in truth["field"].unique()
    }
    return masks, truth


def test_overlaps_of_hand_labelled_fields_equal_coco(hand_labelled) -> None:
    masks, _ = hand_labelled
    for predicted, truth in list(masks.values())[::4]:
        shapes = [
            [coco_mask.encode(np.asfortranarray(image == cell, np.uint8)) for cell in np.unique(image[image > 0])]
            for image in (predicted, truth)
        ]
        iou = coco_mask.iou(*shapes, [0] * len(shapes[1]))
        pairs = find_overlaps(predicted, truth)[0]
        found = np.zeros_like(iou)
        rows = np.searchsorted(np.unique(predicted)[1:], pairs["cell"])
        columns = np.searchsorted(np.unique(truth)[1:], pairs["truth_cell"])
        found[rows, columns] = pairs["iou"]
        np.testing.assert_allclose(found, iou, atol=1e-12)


def test_average_precision_equals_coco_on_hand_labelled_fields(hand_labelled) -> None:
    masks, truth = hand_labelled
    # Every fourth pixel of both masks: COCO would take minutes over all of them.
    masks = {name: tuple(np.ascontiguousarray(image[::4, ::4]) for image in pair) for name, pair in masks.items()}
    matches = match(masks)
    partners = pair_cells(matches.pairs)
    partners = partners.merge(
        truth, left_on=["field", "truth_cell"], right_on=["field", "cell"], suffixes=("", "_true")
    )
    known = matches.predicted.merge(partners, on=["field", "cell"], how="left")["labels"]
    matrix = label_matrix([parse_labels(text) if isinstance(text, str) else () for text in known])
    generator = np.random.default_rng(4)
    # From confidences that know nothing to some that nearly know the truth.
    for noise in (1.0, 0.6, 0.2):
        p = (1 - noise) * matrix + noise * generator.random(matrix.shape)
        cells = with_probabilities(matches.predicted, p)
        for convention in CONVENTIONS:
            found = score_detections(list_detections(cells), truth, matches.pairs)[convention]
            expected = coco_average_precision(masks, truth, cells, convention)
            assert np.isfinite(expected).sum() == 16
            np.testing.assert_allclose(found, expected, atol=1e-9)


def crowded(seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Detections with ties and duplicates, true cells, and pairs of masks that overlap several others."""
    generator = np.random.default_rng(seed)
    n = 60
    found = pd.DataFrame(
        {
            "field": generator.choice(["a", "b", "c"], n),
            "cell": generator.integers(1, 8, n),
            "location": generator.choice([2, 9], n),
            "confidence": generator.integers(0, 6, n) / 5,
        }
    )
    truth = pd.DataFrame(
        [
            (field, cell, format_labels(generator.choice([2, 9, 11], generator.integers(1, 3))))
            for field in ("a", "b", "d")
            for cell in range(1, 7)
        ],
        columns=["field", "cell", "labels"],
    )
    pairs = pd.DataFrame(
        [
            (field, cell, truth_cell, generator.choice([0.3, 0.59, 0.6, 0.7, 0.9]))
            for field in ("a", "b")
            for cell in range(1, 8)
            for truth_cell in range(1, 7)
            if generator.random() < 0.5
        ],
        columns=["field", "cell", "truth_cell", "iou"],
    )
    return found, truth, pairs


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("seed", range(12))
def test_ties_duplicates_and_crowds_follow_the_definition(seed: int, convention: Convention) -> None:
    found, truth, pairs = crowded(seed)
    result = score_detections(found, truth, pairs)[convention]
    for label in (2, 9):
        assert result[label] == pytest.approx(
            plain_average_precision(found, truth, pairs, convention, label), abs=1e-12
        )
    assert result[11] == 0  # There are true cells and no detection.
    assert np.isnan(result[0])


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    found, truth, pairs = crowded(seed)
    results = [map60(found, truth, pairs)]
    for state in range(4):
        shuffled = [table.sample(frac=1, random_state=state, ignore_index=True) for table in (found, truth, pairs)]
        results.append(map60(*shuffled))
    assert all(result == results[0] for result in results)


def test_ties_are_one_point_of_the_curve() -> None:
    # Two true cells, both found, and two false detections, all at one confidence: precision 1/2 at recall 1.
    truth = pd.DataFrame({"field": "f", "cell": [1, 2], "labels": "4"})
    pairs = pd.DataFrame({"field": "f", "cell": [1, 2], "truth_cell": [1, 2], "iou": 1.0})
    found = pd.DataFrame({"field": "f", "cell": [1, 2, 3, 4], "location": 4, "confidence": 0.5})
    assert score_detections(found, truth, pairs)["absent_is_false_positive"][4] == 0.5
    # A second detection of a cell that was found already is wrong, however sure.
    twice = pd.concat([found[:2], found[:1]]).assign(confidence=[0.9, 0.5, 0.8])
    assert score_detections(twice, truth, pairs)["absent_is_false_positive"][4] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_absent_classes_count_or_do_not() -> None:
    truth = pd.DataFrame({"field": ["f", "g"], "cell": [1, 1], "labels": ["4", "5"]})
    pairs = pd.DataFrame({"field": ["f", "g"], "cell": [1, 1], "truth_cell": [1, 1], "iou": 1.0})
    found = pd.DataFrame({"field": ["f", "g"], "cell": [1, 1], "location": 4, "confidence": [0.5, 0.9]})
    assert map60(found, truth, pairs) == {"absent_is_false_positive": 0.25, "absent_ignored": 0.5}


def test_the_threshold_of_overlap_is_inclusive() -> None:
    truth, predicted = np.zeros((1, 10), np.uint8), np.zeros((1, 10), np.uint8)
    truth[:, :5], predicted[:, :3] = 1, 1
    pairs = match({"f": (predicted, truth)}).pairs
    true_cells = pd.DataFrame({"field": ["f"], "cell": [1], "labels": ["4"]})
    found = pd.DataFrame({"field": ["f"], "cell": [1], "location": [4], "confidence": [0.5]})
    assert score_detections(found, true_cells, pairs)["absent_is_false_positive"][4] == 1


def test_a_set_without_any_detection_scores_zero() -> None:
    truth = pd.DataFrame({"field": ["f"], "cell": [1], "labels": ["4"]})
    pairs = pd.DataFrame({"field": [], "cell": [], "truth_cell": [], "iou": []})
    found = pd.DataFrame({"field": [], "cell": [], "location": [], "confidence": []})
    assert map60(found, truth, pairs) == {"absent_is_false_positive": 0, "absent_ignored": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"confidence": [np.nan]}, "field f, cell 1: confidence is not finite"),
        ({"location": [19]}, "locations must be 0 to 18"),
    ],
)
def test_detections_that_cannot_be_scored_are_errors(change: dict, message: str) -> None:
    truth = pd.DataFrame({"field": ["f"], "cell": [1], "labels": ["4"]})
    pairs = pd.DataFrame({"field": ["f"], "cell": [1], "truth_cell": [1], "iou": [1.0]})
    found = pd.DataFrame({"field": ["f"], "cell": [1], "location": [4], "confidence": [0.5]})
    with pytest.raises(ValueError, match=message):
        score_detections(found.assign(**change), truth, pairs)
    with pytest.raises(ValueError, match="duplicate true cell: field f, cell 1"):
        score_detections(found, pd.concat([truth, truth]), pairs)


def random_cells(n: int, seed: int, n_groups: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of some skill on six classes, single labels, and groups of unequal size."""
    generator = np.random.default_rng(seed)
    single = generator.choice([0, 2, 5, 13, 16, 18], n)
    p = generator.dirichlet(np.ones(N_CLASSES), n)
    p[np.arange(n), single] += generator.random(n) * 0.4
    return p / p.sum(axis=1, keepdims=True), single, generator.integers(0, n_groups, n) ** 2


def test_scores_of_cells_equal_scikit_learn() -> None:
    p, single, _ = random_cells(400, seed=3)
    labels = label_matrix([(label,) for label in single])
    labels[:40, 7] = 1
    scores = score_cells(p, labels)
    one = np.arange(400) >= 40
    called = p.argmax(axis=1)
    assert scores["accuracy"] == pytest.approx((called == single)[one].mean())
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert scores["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(single[one], called[one]))
    kept = [0, 2, 5, 7, 13, 16, 18]
    assert scores["macro_ap"] == pytest.approx(average_precision_score(labels[:, kept], p[:, kept], average="macro"))
    assert scores["macro_auc"] == pytest.approx(roc_auc_score(labels[:, kept], p[:, kept], average="macro"))
    assert scores["ci95"] == dict.fromkeys(CELL_SCORES)


def test_replicates_equal_scores_of_the_resampled_rows() -> None:
    p, single, groups = random_cells(300, seed=5)
    p = p.round(2)  # With ties.
    names, group = np.unique(groups, return_inverse=True)
    weights = resampled_groups(len(names), 5, seed=1)
    for label in (2, 16):
        ap, auc = cells_room._replicated_ranking(p[:, label], single == label, group, weights)
        for replicate in range(5):
            rows = np.repeat(np.arange(300), weights[replicate, group].astype(int))
            assert ap[replicate] == pytest.approx(average_precision_score(single[rows] == label, p[rows, label]))
            assert auc[replicate] == pytest.approx(roc_auc_score(single[rows] == label, p[rows, label]))


def test_score_levels_of_many_cells_hardly_move_a_replicate() -> None:
    p, single, groups = random_cells(6000, seed=6)
    names, group = np.unique(groups, return_inverse=True)
    weights = np.ones((1, len(names)))
    ap, auc = cells_room._replicated_ranking(p[:, 2], single == 2, group, weights)
    assert ap[0] == pytest.approx(average_precision_score(single == 2, p[:, 2]), abs=2e-3)
    assert auc[0] == pytest.approx(roc_auc_score(single == 2, p[:, 2]), abs=1e-4)


@pytest.mark.parametrize("ascending", [True, False])
def test_scores_that_tie_share_a_level_whatever_the_order_of_rows(ascending: bool) -> None:
    # Half of the cells at 0, as where a network is sure; rows come sorted by truth, as they do field by field.
    generator = np.random.default_rng(0)
    positive = np.sort(generator.random(6000) < 0.4)[:: 1 if ascending else -1]
    score = np.where(generator.random(6000) < 0.5, 0.0, generator.random(6000) * 0.5 + 0.3 * positive)
    assert len(np.unique(score)) > cells_room._LEVELS
    ap, auc = cells_room._replicated_ranking(score, positive, np.zeros(6000, int), np.ones((1, 1)))
    assert ap[0] == pytest.approx(average_precision_score(positive, score), abs=2e-3)
    assert auc[0] == pytest.approx(roc_auc_score(positive, score), abs=2e-3)


def test_one_group_of_cells_with_one_label_has_no_interval() -> None:
    p = np.full((4, N_CLASSES), 0.01)
    p[:, 3] = 0.5
    p[2:, 4] = 0.4
    labels = label_matrix([(3,), (3,), (3, 4), (3, 4)])
    intervals = score_cells(p, labels, np.array(["a", "a", "b", "b"]))["ci95"]
    assert intervals["accuracy"] is intervals["balanced_accuracy"] is intervals["ece"] is None
    assert intervals["macro_ap"][1] == 1


def test_intervals_resample_groups_and_not_cells() -> None:
    generator = np.random.default_rng(8)
    n_groups, size = 40, 50
    right = np.repeat(generator.random(n_groups) < 0.7, size)
    groups = np.repeat(np.arange(n_groups), size)
    p = np.full((n_groups * size, N_CLASSES), 0.01)
    p[np.arange(len(p)), np.where(right, 3, 4)] = 0.8
    labels = label_matrix([(3,)] * len(p))
    low, high = score_cells(p, labels, groups)["ci95"]["accuracy"]
    # All cells of a group are right or wrong together: there are 40 trials, not 2000.
    expected = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / n_groups)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert score_cells(p, labels, groups)["ci95"] == score_cells(p, labels, groups)["ci95"]
    again = generator.permutation(len(p))
    assert score_cells(p[again], labels, groups[again])["ci95"]["accuracy"] == (low, high)


def test_a_perfect_score_has_no_interval_of_width_zero() -> None:
    p = np.full((60, N_CLASSES), 0.01)
    p[:, 3] = 0.8
    labels = label_matrix([(3,)] * 60)
    low, high = score_cells(p, labels, np.repeat(np.arange(30), 2))["ci95"]["accuracy"]
    assert high == 1
    # Clopper and Pearson: 0.025 ** (1 / 30).
    assert low == pytest.approx(0.88430, abs=1e-4)
    assert score_cells(p, labels, np.zeros(60))["ci95"]["accuracy"] is None


def test_calibration_error_by_hand() -> None:
    p = np.zeros((4, N_CLASSES))
    p[:, 0] = 0.6, 0.6, 0.95, 0.95
    table = bin_confidences(p, np.array([0, 1, 0, 0]), bins=10)
    assert table[["low", "n", "confidence", "accuracy"]].to_numpy().tolist() == [
        pytest.approx([0.5, 2, 0.6, 0.5]),
        pytest.approx([0.9, 2, 0.95, 1.0]),
    ]
    assert measure_calibration_error(table) == pytest.approx((2 * 0.1 + 2 * 0.05) / 4)


def test_a_probability_that_is_not_finite_is_an_error() -> None:
    p = np.full((3, N_CLASSES), 0.1)
    p[1, 4] = np.nan
    with pytest.raises(ValueError, match="row 1"):
        score_cells(p, label_matrix([(1,)] * 3))


def test_pooling_more_cells_helps_and_owners_without_enough_cells_drop_out() -> None:
    generator = np.random.default_rng(9)
    sizes = [3] * 10 + [30] * 30
    owner = np.repeat(np.arange(40), sizes)
    single = np.repeat(generator.integers(0, 4, 40), sizes)
    p = generator.random((len(owner), N_CLASSES))
    p[np.arange(len(owner)), single] += 0.3
    table = measure_pooling(p, single, owner, sizes=(1, 3, 10, 20, 50)).set_index(["method", "size"])
    for method in ("mean", "vote"):
        accuracy = table.loc[method]["accuracy"]
        assert accuracy["1"] + 0.2 < accuracy["3"] + 0.1 < accuracy["10"] <= accuracy["20"]
        assert table.loc[method]["n_owners"].to_dict() == {
            "1": 40, "3": 40, "10": 30, "20": 30, "all": 40, "all of >= 10": 30,
        }  # fmt: skip
    assert table.loc[("mean", "1"), "accuracy"] == table.loc[("vote", "1"), "accuracy"]


def collection(seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, Matches]:
    masks, truth = simulated_masks(6, seed)
    matches = match({**masks, "lost": (None, masks["f0"][1])})
    truth = pd.concat([truth, truth[truth["field"] == "f0"].assign(field="lost")], ignore_index=True)
    generator = np.random.default_rng(seed)
    cells = with_probabilities(matches.predicted, generator.random((len(matches.predicted), N_CLASSES)))
    fields = pd.DataFrame(
        {
            "field": [*masks, "lost", "bare"],
            "sheet_labels": ["0", "0|16", "5", "5", "18", "", "0", ""],
            "antibody": ["A", "A", "B", "B", "", "", "C", ""],
            "status": ["ok"] * 6 + ["rejected", "ok"],
        }
    )
    return cells, fields, truth, matches


def test_evaluation_with_truth_per_cell() -> None:
    cells, fields, truth, matches = collection()
    result = evaluate_collection(cells, fields, truth, matches)
    scores = result.metrics
    assert set(scores) == {
        "n_fields", "n_cells", "cells", "calibration", "label_sets", "fields", "proteins", "map60", "segmentation",
        "baselines", "over_baseline",
    }  # fmt: skip
    assert set(scores["cells"]) == {*CELL_SCORES, "ci95"}
    assert set(scores["fields"]) == set(scores["proteins"]) == {"accuracy", "macro_ap"}
    assert (scores["n_fields"], scores["n_cells"]) == (8, len(cells))
    json.dumps(scores, allow_nan=False)
    # True cells of the rejected field count as missed.
    assert scores["map60"] == map60(list_detections(cells), truth, matches.pairs)
    assert (
        scores["map60"]["absent_ignored"]
        < map60(list_detections(cells), truth[truth["field"] != "lost"], matches.pairs)["absent_ignored"]
    )
    partners = pair_cells(matches.pairs)
    assert len(result.cells) == len(partners)
    by_id = truth.set_index(["field", "cell"])["labels"]
    row = result.cells.iloc[3]
    assert row["true_labels"] == by_id[row["field"], row["truth_cell"]]
    single = result.cells[~result.cells["true_labels"].str.contains("|", regex=False)]
    called = single[P].to_numpy().argmax(axis=1)
    assert scores["cells"]["accuracy"] == pytest.approx((called == single["true_labels"].astype(int)).mean())
    assert result.tables["confusion"].drop(columns="true").to_numpy().sum() == len(single)
    assert result.tables["per_class"]["n_single"].sum() == len(single)
    # One-label fields: f0, f2, f3, f4 and the rejected one, which is called wrong; f5 has the labels of its cells.
    means = cells.groupby("field")[P].mean()
    right = [
        means.loc[field].to_numpy().argmax() == label for field, label in (("f0", 0), ("f2", 5), ("f3", 5), ("f4", 18))
    ]
    assert scores["fields"]["accuracy"] == pytest.approx(sum(right) / 5)
    n = result.tables["scores"].set_index(["level", "score"])["n"]
    assert n["cell", "accuracy"] == len(single) < n["cell", "macro_ap"] == len(result.cells)
    assert n["field", "accuracy"] == 5
    assert n["field", "macro_ap"] == 7
    assert n["protein", "accuracy"] == 2
    assert n["protein", "macro_ap"] == 3


def test_detections_of_true_cells_without_a_label_are_not_scored(caplog: pytest.LogCaptureFixture) -> None:
    cells, fields, truth, matches = collection()
    kept = truth[truth.groupby("field").cumcount() % 3 > 0]
    with_label = set(kept[["field", "cell"]].itertuples(index=False, name=None))
    near = matches.pairs[matches.pairs["iou"] >= 0.6]
    without = [(row.field, row.cell) for row in near.itertuples() if (row.field, row.truth_cell) not in with_label]
    scored = cells[[pair not in without for pair in zip(cells["field"], cells["cell"], strict=True)]]
    assert 0 < len(scored) < len(cells)
    found = evaluate_collection(cells, fields, kept, matches)
    assert "have no label; their detections are not scored" in caplog.text
    assert found.metrics["map60"] == map60(list_detections(scored), kept, matches.pairs)
    assert found.metrics["map60"] != map60(list_detections(cells), kept, matches.pairs)
    # Their masks are still true masks.
    assert found.metrics["segmentation"] == evaluate_collection(cells, fields, truth, matches).metrics["segmentation"]


def test_leaned_probabilities_have_scores_of_their_own() -> None:
    cells, fields, truth, matches = collection()
    plain = evaluate_collection(cells, fields, truth, matches)
    leaned = cells.groupby("field")[P].transform("mean").set_axis(list(LEANED), axis=1)
    both = evaluate_collection(cells.join(leaned), fields, truth, matches)
    for level in ("cells", "fields", "proteins", "label_sets", "map60"):
        assert both.metrics[level] == plain.metrics[level]
    instead = evaluate_collection(
        cells.assign(**dict(zip(P, leaned.to_numpy().T, strict=True))), fields, truth, matches
    )
    assert both.metrics["cells_leaned"] == instead.metrics["cells"] != both.metrics["cells"]
    assert both.metrics["map60_leaned"] == instead.metrics["map60"] != both.metrics["map60"]
    levels = set(both.tables["scores"]["level"]) - set(plain.tables["scores"]["level"])
    assert levels == {"cell_leaned", "map60_leaned"}


def test_label_sets_are_scored_as_by_scikit_learn() -> None:
    generator = np.random.default_rng(4)
    labels = (generator.random((200, N_CLASSES)) < 0.15).astype(int)
    labels[:, 11] = 0
    called = np.where(generator.random(labels.shape) < 0.1, 1 - labels, labels)
    occurs = np.flatnonzero(labels.any(axis=0))
    scores = score_label_sets(called, labels, np.arange(200) // 10)
    assert scores["exact_match"] == accuracy_score(labels, called)
    assert scores["macro_f1"] == pytest.approx(f1_score(labels, called, labels=occurs, average="macro"))
    assert scores["micro_f1"] == pytest.approx(f1_score(labels, called, average="micro"))
    for name in SET_SCORES:
        low, high = scores["ci95"][name]
        assert low < scores[name] < high
    precision, recall, f1, _ = precision_recall_fscore_support(labels, called, zero_division=np.nan)
    table = score_classes(called, labels)
    np.testing.assert_allclose(table["set_precision"], precision)
    np.testing.assert_allclose(table["set_recall"][occurs], recall[occurs])
    np.testing.assert_allclose(table["set_f1"], f1)


def test_the_labels_after_the_thresholds_are_scored_and_not_the_likeliest_class() -> None:
    cells, fields, truth, matches = collection()
    cells["labels"] = "0|16"
    result = evaluate_collection(cells, fields, truth, matches)
    exact = (result.cells["true_labels"] == "0|16").mean()
    assert result.metrics["label_sets"]["exact_match"] == pytest.approx(exact)
    per_class = result.tables["per_class"].set_index("location")
    assert per_class.loc[16, "set_recall"] == 1
    assert per_class.loc[16, "set_precision"] == pytest.approx(
        result.cells["true_labels"].str.split("|").map(lambda labels: "16" in labels).mean()
    )
    scores = result.tables["scores"].set_index(["level", "score"])
    assert scores.loc[("label_set", "exact_match"), "n"] == len(result.cells)


def test_calibration_is_scored_before_and_after_the_temperature() -> None:
    cells, fields, truth, matches = collection()
    metrics = evaluate_collection(cells, fields, truth, matches, temperature=2.0).metrics["calibration"]
    # The temperature flattens: it is as if the probabilities were these.
    flat = cells.assign(**dict(zip(P, calibrate(cells[P].to_numpy(), 2.0).T, strict=True)))
    other = evaluate_collection(flat, fields, truth, matches).metrics["calibration"]
    assert metrics["temperature"] == 2.0
    assert metrics["ece_calibrated"] == pytest.approx(other["ece"]) != metrics["ece"]
    assert other["temperature"] is other["ece_calibrated"] is None


def test_evaluation_with_inherited_labels() -> None:
    cells, fields, _, _ = collection()
    result = evaluate_collection(cells, fields)
    assert "map60" not in result.metrics
    assert set(result.cells["field"]) == {"f0", "f2", "f3", "f4"}
    assert result.cells["true_labels"].groupby(result.cells["field"]).first().to_dict() == {
        "f0": "0", "f2": "5", "f3": "5", "f4": "18",
    }  # fmt: skip
    assert result.metrics["n_cells"] == len(cells)


def test_evaluation_of_a_collection_without_labels_has_no_scores() -> None:
    cells, fields, _, _ = collection()
    result = evaluate_collection(cells, fields.assign(sheet_labels="", antibody=""))
    assert result.metrics["cells"] == {**dict.fromkeys(CELL_SCORES), "ci95": dict.fromkeys(CELL_SCORES)}
    assert result.metrics["label_sets"] == {**dict.fromkeys(SET_SCORES), "ci95": dict.fromkeys(SET_SCORES)}
    assert result.metrics["fields"] == {"accuracy": None, "macro_ap": None}
    assert result.metrics["proteins"] is None
    assert result.tables["pooled"].empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cells, truth, matches: (cells, pd.concat([truth, truth[:1].assign(cell=99)]), matches),
         "field f0, cell 99: true cell without a true mask"),
        (lambda cells, truth, matches: (cells[1:], truth, matches), "predicted mask without a prediction"),
        (lambda cells, truth, matches: (pd.concat([cells, cells[:1].assign(cell=77)]), truth, matches),
         "field f0, cell 77: predicted cell without a predicted mask"),
    ],
)  # fmt: skip
def test_truth_masks_and_tables_must_agree(change, message: str) -> None:
    cells, fields, truth, matches = collection()
    cells, truth, matches = change(cells, truth, matches)
    with pytest.raises(ValueError, match=message):
        evaluate_collection(cells, fields, truth, matches)


def test_evaluate_writes_the_folder(tmp_path: Path) -> None:
    masks, truth = simulated_masks(3, seed=2)
    files = CollectionFiles(
        "test", ["001"], [tmp_path / "cells.csv"], str(tmp_path / "truth" / "{id}_cellmask.png"), folder=tmp_path
    )
    plain = CollectionFiles("plain", ["001"], folder=tmp_path)
    for name, (predicted, true_mask) in masks.items():
        for folder, image in ((files.path("segmentation", "001"), predicted), (tmp_path / "truth", true_mask)):
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{name}_cellmask.png"), image)
    matches = match(masks)
    cells = with_probabilities(matches.predicted, np.random.default_rng(0).random((len(matches.predicted), N_CLASSES)))
    fields = pd.DataFrame(
        {"field": list(masks), "sheet_labels": "0", "antibody": ["A", "A", "B"], "status": "ok", "shard": "001"}
    )
    for collection in (files, plain):
        collection.path("pooled_cells").parent.mkdir(parents=True)
        cells.to_parquet(collection.path("pooled_cells"))
        fields.to_parquet(collection.path("pooled_fields"))
    truth.rename(columns={"field": "ID", "labels": "Label"}).to_csv(tmp_path / "cells.csv", index=False)
    control = score_cells(np.eye(N_CLASSES), np.eye(N_CLASSES))
    plain_left_out = fields["field"][fields["antibody"] == "B"].tolist()
    nothing = pd.DataFrame({"field": [], "cell": [], "kind": []}).astype({"field": object, "cell": int, "kind": object})
    nothing.to_parquet(tmp_path / "test.parquet")
    pd.DataFrame({"field": plain_left_out, "cell": 0, "kind": "antibody"}).to_parquet(tmp_path / "plain.parquet")
    seen = {name: tmp_path / f"{name}.parquet" for name in ("test", "plain")}
    result = evaluate([files, plain], tmp_path / "out", {"shuffled_labels": control}, threads=2, seen=seen)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    assert list(result) == ["test", "plain", "controls"]
    assert result["controls"]["shuffled_labels"]["accuracy"] == 1
    assert result["controls"]["tile_random_split"] is None
    assert result["test"]["map60"] == map60(list_detections(cells), truth, matches.pairs)
    for name in ("per_class", "confusion", "reliability", "pooled", "scores"):
        table = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert set(table["collection"]) == {"test", "plain"}
    # What training has seen is counted, and not scored.
    n_left_out = int(cells["field"].isin(plain_left_out).sum())
    assert result["test"]["left_out"] == {"fields": 0, "cells": 0, "by": {}}
    counts = {"fields": 1, "cells": n_left_out}
    assert result["plain"]["left_out"] == {**counts, "by": {"antibody": counts}}
    table = pd.read_csv(tmp_path / "out/left_out.csv")
    assert table.to_dict("records") == [{"collection": "plain", "kind": "antibody", **counts}]
    scored = pd.read_parquet(tmp_path / "out/plain/cells.parquet")
    assert set(scored["field"]) == set(fields["field"]) - set(plain_left_out)
    assert evaluate([plain], tmp_path / "unknown")["plain"]["left_out"] is None
    # Of a collection of which nothing is left, no score is written.
    pd.DataFrame({"field": fields["field"], "cell": 0, "kind": "id"}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(SeenError, match="collection plain: training has seen all of its 3 labelled fields"):
        evaluate([plain], tmp_path / "seen", seen={"plain": tmp_path / "plain.parquet"})
    # In a folder that has scores, a run with nothing to score leaves none.
    result = evaluate([], tmp_path / "out", unscored="nothing has labels")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    assert result == {"unscored": "nothing has labels", "controls": dict.fromkeys(CONTROLS)}
    for name in ("per_class", "confusion", "reliability", "pooled", "baselines", "scores"):
        table = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert table.empty
        assert len(table.columns) > 5
    assert list(pd.read_csv(tmp_path / "out/left_out.csv")) == ["collection", "kind", "fields", "cells"]
    with pytest.raises(ValueError, match="unknown control 'tile_split'"):
        evaluate([plain], tmp_path / "out", {"tile_split": control})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,cell\nf,1\n", "has no column Label"),
        ("ID,cell,Label\nf,0,3\n", r"line 2 \(ID f\): cell '0' is not a positive integer"),
        ("ID,cell,Label\nf,1,3\nf,2,30\n", r"line 3 \(ID f\): unknown label '30'"),
        ("ID,cell,Label\nf,1,3\nf,1,4\n", r"line 3 \(ID f\): cell 1 appears twice"),
        ("ID,cell,Label\n\nf,1,3\n\nf,2,30\n", r"line 5 \(ID f\): unknown label '30'"),
        ("ID,cell,Label\nf,1,3,4\n", "line 2: does not have the 3 columns"),
        ("ID,cell,Label\nf,1\n", "line 2: does not have the 3 columns"),
        ("ID,cell,Label\nf,99999999999999999999,3\n", r"line 2 \(ID f\): cell '9{20}' is not a positive integer"),
        ("", "has no column ID"),
        ("ID,cell,Label\nf\xe9,1,3\n", r"is not UTF-8 text \(byte 15\)"),
    ],
)
def test_a_bad_table_of_true_cells_names_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cells.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=f"cells.csv.*{message}"):
        read_truth(CollectionFiles("test", true_cells=[tmp_path / "cells.csv"]), ["NA"])


def test_a_table_of_true_cells_may_have_other_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text('\ufeff,ID,cell,who,Label\r\n0,NA,7,"a, b",5|0|5\r\n', newline="")
    found = read_truth(CollectionFiles("test", true_cells=[tmp_path / "cells.csv"]), ["NA"])
    assert found.to_dict("records") == [{"field": "NA", "cell": 7, "labels": "0|5"}]
    assert found["cell"].dtype == np.int64


def test_a_true_cell_that_its_mask_lacks_stops_scoring_and_training_alike(tmp_path: Path) -> None:
    mask = np.zeros((8, 8), np.uint16)
    mask[:4] = 1
    files = CollectionFiles("test", ["000"], [tmp_path / "cells.csv"], str(tmp_path / "{id}.png"), folder=tmp_path)
    segmentation = files.path("segmentation", "000")
    segmentation.mkdir(parents=True)
    for path in (tmp_path / "a.png", segmentation / "a_cellmask.png"):
        cv2.imwrite(str(path), mask)
    (tmp_path / "cells.csv").write_text("ID,cell,Label\na,1,0\na,7,3\n")
    message = (
        r"field a, cell 7: true cell that is not in .*\{id\}\.png; remove it from the table of true cells \(1 such"
    )
    fields = pd.DataFrame({"field": ["a"], "shard": "000", "status": "ok"})
    with pytest.raises(ValueError, match=message):
        _match_truth(files, fields, read_truth(files, fields["field"]), threads=1)
    cells = pd.DataFrame({"field": ["a"], "cell": [1], "height": 8, "width": 8, "rle": encode(mask == 1)})
    with pytest.raises(ValueError, match=message):
        read_true_labels(cells, fields.assign(shard=0), files)


def test_truth_of_other_fields_alone_is_warned_of(tmp_path: Path, caplog) -> None:
    (tmp_path / "cells.csv").write_text("ID,cell,Label\nf-1,1,3\nf-1,2,3\n")
    files = CollectionFiles("test", ["000"], [tmp_path / "cells.csv"], str(tmp_path / "{id}.png"), folder=tmp_path)
    fields = pd.DataFrame({"field": ["f_1"], "shard": "000", "status": "ok"})
    truth = read_truth(files, fields["field"])
    matches = _match_truth(files, fields, truth, threads=1)
    assert len(truth) == len(matches.truth) == len(carry_labels(truth, matches.pairs)) == 0
    assert "all 2 true cells belong to fields that are not in this collection, such as f-1" in caplog.text


def example_table(n_groups: int = 12) -> pd.DataFrame:
    rows = []
    for group in range(n_groups):
        label = (0, 0, 5, 18)[group % 4]
        for cell in range(1, 6):
            for copy in range(2 if group == 1 else 1):
                rows.append((f"f{group}", cell, copy, "validation" if group < 3 else "train", f"g{group}", str(label)))
    table = pd.DataFrame(rows, columns=["field", "cell", "copy", "part", "group", "labels"])
    vectors = label_matrix([parse_labels(text) for text in table["labels"]]).astype(np.uint8)
    return pd.concat([table, pd.DataFrame(vectors, columns=[f"label_{index}" for index in range(N_CLASSES)])], axis=1)


def test_control_that_splits_fields() -> None:
    table = example_table()
    changed = control_examples(table, "tile_random_split", 0.25, seed=1)
    validation = changed[changed["part"] == "validation"]
    assert len(validation) == 15
    assert (validation["copy"] == 0).all()
    train = set(zip(*changed.loc[changed["part"] == "train", ["field", "cell"]].to_numpy().T, strict=True))
    held = set(zip(*validation[["field", "cell"]].to_numpy().T, strict=True))
    assert not train & held
    assert len(train | held) == 60
    assert {field for field, _ in train} & {field for field, _ in held}


def test_control_that_sorts_by_class_validates_on_one_class() -> None:
    changed = control_examples(example_table(), "class_sorted_split")
    validation = changed[changed["part"] == "validation"]
    assert validation["labels"].tolist() == ["0"] * round(60 * 0.075)


def test_control_that_shuffles_labels_keeps_the_split_and_moves_every_group() -> None:
    table = example_table()
    table["labels"] = [f"{index}" for index in np.repeat(np.arange(12), [5, 10] + [5] * 10)]
    table[[f"label_{index}" for index in range(N_CLASSES)]] = np.eye(N_CLASSES, dtype=np.uint8)[
        table["labels"].astype(int)
    ]
    changed = control_examples(table, "shuffled_labels", seed=3)
    pd.testing.assert_frame_equal(
        changed[["field", "cell", "copy", "part", "group"]], table[["field", "cell", "copy", "part", "group"]]
    )
    assert (changed["labels"] != table["labels"]).all()
    assert (changed.groupby("group")["labels"].nunique() == 1).all()
    assert set(changed["labels"]) == set(table["labels"])
    vectors = changed[[f"label_{index}" for index in range(N_CLASSES)]]
    assert (vectors.dtypes == np.uint8).all()
    assert vectors.to_numpy().argmax(axis=1).tolist() == changed["labels"].astype(int).tolist()


def test_every_control_of_the_evaluation_can_be_made_and_no_other() -> None:
    for control in CONTROLS:
        assert not control_examples(example_table(), control, 0.25).equals(example_table())
    with pytest.raises(ValueError, match="unknown control 'random'"):
        control_examples(example_table(), "random")
