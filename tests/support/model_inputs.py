"""Small tiles, datasets and model folders for the tests of the network."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hpaloc.classes import NAMES
from hpaloc.examples import EXAMPLES
from hpaloc.tables import CELLS, to_table, write_table
from hpaloc.tfrecord import TileRecord, cell_key, frame


def patterned_tiles(labels: np.ndarray, size: int, planes: int, seed: int = 0) -> np.ndarray:
    """Return (n, size, size, planes) uint8 tiles whose green (plane 1 or 0) is striped by the class of the cell."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 60, (len(labels), size, size, planes), dtype=np.uint8)
    place = np.arange(size)
    for tile, label in zip(tiles, labels, strict=True):
        stripes = (place // (2 + label) % 2 * 180).astype(np.uint8)
        tile[..., min(1, planes - 1)] += stripes[:, None]
    return tiles


def predict_shard(
    model_dir: Path,
    tiles: Mapping[str, Path],
    cells: Path,
    out: Path,
    views: int = 8,
    batch_size: int = 64,
    gpu: str = "none",
    precision: str = "auto",
    mixtures: bool = True,
    **options: object,
) -> None:
    """Predict one shard with a model folder; ``options`` are those of ``Predictor.predict_shard``."""
    # TensorFlow is loaded by the tests that predict.
    from hpaloc.prediction import Predictor

    predictor = Predictor(model_dir, views, batch_size, gpu, precision=precision, mixtures=mixtures)
    predictor.predict_shard(tiles, cells, out, **options)


def write_tile_shard(folder: Path, tiles: np.ndarray, colours: tuple[str, ...], start: int = 0) -> pd.DataFrame:
    """Write one TFRecord per colour and cells.parquet; return the cell table (field, cell)."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = pd.DataFrame(
        {"field": [f"field{(start + i) // 5}" for i in range(len(tiles))], "cell": np.arange(1, len(tiles) + 1) + start}
    )
    for plane, colour in enumerate(colours):
        with open(folder / f"{colour}.tfrecord", "wb") as file:
            for (field, cell), tile in zip(cells.itertuples(index=False), tiles, strict=True):
                record = TileRecord(field, int(cell), np.ascontiguousarray(tile[..., plane]), 255.0)
                file.write(frame(record.encode()))
    write_table(folder / "cells.parquet", to_table(cells.reindex(columns=CELLS.names), CELLS))
    return cells


def write_training_data(folder: Path, counts: dict[str, int], size: int, colours: tuple[str, ...]) -> Path:
    """Write train/ and validation/ records of the classes 0, 3 and 18 in turn; return the path of examples.parquet."""
    tables = []
    for number, (part, count) in enumerate(counts.items()):
        classes = np.array([0, 3, 18])[np.arange(count) % 3]
        cells = write_tile_shard(
            folder / part, patterned_tiles(classes, size, len(colours), number), colours, 1000 * number
        )
        (folder / part / "cells.parquet").unlink()
        for colour in colours:
            (folder / part / f"{colour}.tfrecord").rename(folder / part / f"{colour}-00000-of-00001.tfrecord")
        rows = cells.reindex(columns=EXAMPLES.names).assign(
            part=part,
            record_shard=0,
            position=np.arange(count),
            key=[cell_key(field, int(cell)) for field, cell in cells.itertuples(index=False)],
            shard=0,
            row=np.arange(count),
            group=cells["field"],
            origin="real",
            copy=0,
            copies=1,
            green_scale=1.0,
            weight=1.0,
            labels=[str(label) for label in classes],
        )
        for index in range(len(NAMES)):
            rows[f"label_{index}"] = (classes == index).astype(np.uint8)
        tables.append(rows)
    write_table(folder / "examples.parquet", to_table(pd.concat(tables, ignore_index=True), EXAMPLES))
    return folder / "examples.parquet"


def untrained_classifier(channels: tuple[str, ...], size: int):
    """Return a sigmoid classifier before its first step, with the statistics of patterned tiles.

    So cells come out different, and no probability is 0 or 1.
    """
    import keras

    from hpaloc.network.resnet import classifier
    from hpaloc.training.statistics import statistics_renewal

    keras.utils.set_random_seed(2)
    model = classifier(channels, "sigmoid", size)
    statistics_renewal(model)([patterned_tiles(np.arange(16), size, len(channels))])
    return model


def write_model_folder(folder: Path, model, channels: tuple[str, ...], head: str, input_size: int) -> Path:
    """Write a model folder around an untrained classifier."""
    from hpaloc.network.folder import write_checksums
    from hpaloc.network.options import LEVELS_EDITION

    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    config = {
        "channels": list(channels),
        "head": head,
        "input_size": input_size,
        "units": 512,
        "dropout": [0.5, 0.25],
        "classes": list(NAMES),
        "preprocessing": {"levels": LEVELS_EDITION},
    }
    thresholds = {name: 0.06 for name in NAMES[:-1]} if head == "sigmoid" else None
    rule = "complement" if head == "sigmoid" else "network"
    decision = {"negative_rule": rule, "thresholds": thresholds, "views": 2}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "thresholds.json").write_text(json.dumps(decision))
    write_checksums(folder, ("model.keras", "config.json", "thresholds.json"))
    return folder
