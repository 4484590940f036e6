"""Compare the time to score a whole set: hpaloc, pycocotools, and a loop over masks.

Fields are drawn here (discs on a jittered grid, predicted ones moved) in the number and size of the competition's
hand-labelled sets: 328 fields of 2048 x 2048 px, 18 cells each, 19 detections per cell. pycocotools scores a part of
the fields, and the loop over masks a smaller part; their times are scaled to the whole set, which is fair for steps
that work field by field. All times are processor seconds. Run: python benchmarks/metrics.py [--fields 328] [--side
2048]
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import N_CLASSES, format_labels, parse_labels
from hpaloc.evaluation.collection import evaluate_collection
from hpaloc.evaluation.detection import list_detections, score_detections
from hpaloc.masks import read_mask, write_mask
from hpaloc.matching import match_fields
from hpaloc.tables import PROBABILITIES

COLUMNS, ROWS = 6, 3


def draw_field(side: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a predicted and a true label image of 18 cells, the predicted ones moved by up to a tenth."""
    predicted, truth = np.zeros((side, side), np.uint16), np.zeros((side, side), np.uint16)
    for cell in range(COLUMNS * ROWS):
        width, height = side // COLUMNS, side // ROWS
        centre = np.array([(cell % COLUMNS + 0.5) * width, (cell // COLUMNS + 0.5) * height])
        axes = int(width * 0.42), int(height * 0.42)
        for image, moved in ((truth, 0.0), (predicted, 0.1)):
            place = centre + moved * width * generator.uniform(-1, 1, 2)
            cv2.ellipse(image, place.astype(int).tolist(), axes, 0, 0, 360, cell + 1, -1)
    return predicted, truth


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor seconds of a job, which other jobs on the machine hardly change, and its result."""
    start = time.process_time()
    result = job()
    return time.process_time() - start, result


def by_coco(masks: dict[str, tuple[np.ndarray, np.ndarray]], truth: pd.DataFrame, cells: pd.DataFrame) -> float:
    """Encode, match and score with pycocotools (101 recalls, as it comes)."""
    names = {name: index for index, name in enumerate(masks)}
    shapes = {
        (name, side, cell): coco_mask.encode(np.asfortranarray(image == cell, np.uint8))
        for name, pair in masks.items()
        for side, image in enumerate(pair)
        for cell in np.unique(image[image > 0]).tolist()
    }
    annotations = [
        {
            "id": len(names) + row * N_CLASSES + label,
            "image_id": names[name],
            "category_id": label,
            "iscrowd": 0,
            "area": 1.0,
            "segmentation": shapes[name, 1, cell],
        }
        for row, (name, cell, text) in enumerate(truth[["field", "cell", "labels"]].itertuples(index=False))
        for label in parse_labels(text)
    ]
    p = cells[list(PROBABILITIES)].to_numpy()
    results = [
        {
            "image_id": names[name],
            "category_id": label,
            "score": float(p[row, label]),
            "segmentation": shapes[name, 0, cell],
        }
        for row, (name, cell) in enumerate(zip(cells["field"], cells["cell"], strict=True))
        for label in range(N_CLASSES)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        gold = COCO()
        size = {"height": len(next(iter(masks.values()))[0]), "width": len(next(iter(masks.values()))[0])}
        gold.dataset = {
            "images": [{"id": index, **size} for index in names.values()],
            "categories": [{"id": label} for label in range(N_CLASSES)],
            "annotations": annotations,
        }
        gold.createIndex()
        judge = COCOeval(gold, gold.loadRes(results), "segm")
        judge.params.iouThrs, judge.params.maxDets = np.array([0.6]), [100_000]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"]
    return float(precision[precision > -1].mean())


def by_loop(masks: dict[str, tuple[np.ndarray, np.ndarray]]) -> int:
    """Compare every predicted with every true mask, pixel by pixel; return the pairs of IoU at least 0.6."""
    hits = 0
    for predicted, truth in masks.values():
        for cell in np.unique(predicted[predicted > 0]):
            for truth_cell in np.unique(truth[truth > 0]):
                a, b = predicted == cell, truth == truth_cell
                hits += np.logical_and(a, b).sum() / np.logical_or(a, b).sum() >= 0.6
    return int(hits)


def main(arguments: argparse.Namespace) -> None:
    generator = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        predicted, truth_files, truth_rows = {}, {}, []
        for index in range(arguments.fields):
            name = f"field{index:04d}"
            for files, part, image in zip(
                (predicted, truth_files), ("p", "t"), draw_field(arguments.side, generator), strict=True
            ):
                files[name] = write_mask(Path(folder, f"{name}_{part}.png"), image)
            for cell in range(1, COLUMNS * ROWS + 1):
                labels = format_labels(generator.choice(N_CLASSES, generator.integers(1, 3), replace=False))
                truth_rows.append((name, cell, labels))
        truth = pd.DataFrame(truth_rows, columns=["field", "cell", "labels"])
        p = pd.DataFrame(generator.random((len(truth), N_CLASSES)), columns=list(PROBABILITIES))
        cells = pd.concat([truth, p], axis=1)
        fields = pd.DataFrame({"field": list(predicted), "sheet_labels": "", "antibody": ""})

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            return read_mask(predicted[name]), read_mask(truth_files[name])

        matching, matches = timed(lambda: match_fields(predicted, read, arguments.threads))
        detecting, scores = timed(lambda: score_detections(list_detections(cells), truth, matches.pairs))
        everything, _ = timed(lambda: evaluate_collection(cells, fields, truth, matches))

        names = list(predicted)[: max(2, arguments.fields // 16)]
        part = {name: read(name) for name in names}
        in_memory, _ = timed(lambda: match_fields(part, part.__getitem__))
        own = [table[table["field"].isin(names)] for table in (truth, cells)]
        coco, _ = timed(lambda: by_coco(part, *own))
        few = dict(list(part.items())[: max(1, len(part) // 10)])
        loop, _ = timed(lambda: by_loop(few))

    whole = arguments.fields
    report = {
        "fields": whole,
        "cells": len(cells),
        "side_px": arguments.side,
        "threads": arguments.threads,
        "hpaloc": {
            "read_and_match_files_s": matching,
            "match_in_memory_s": in_memory * whole / len(part),
            "map60_both_conventions_s": detecting,
            "all_scores_with_1000_replicates_s": everything,
        },
        "pycocotools_in_memory_s": coco * whole / len(part),
        "loop_over_masks_in_memory_s (matching alone)": loop * whole / len(few),
        "map60": {convention: float(np.nanmean(values)) for convention, values in scores.items()},
    }
    mine = report["hpaloc"]["match_in_memory_s"] + detecting / 2
    report["times_faster_than_pycocotools"] = report["pycocotools_in_memory_s"] / mine
    report["times_faster_than_loop"] = report["loop_over_masks_in_memory_s (matching alone)"] / mine
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=328)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
