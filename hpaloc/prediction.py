"""Per-cell prediction: a shard's tiles through a model folder into one Parquet table, batch by batch."""

import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from hpaloc.classes import format_labels
from hpaloc.files import atomic_path
from hpaloc.mixtures.light import measure_light
from hpaloc.mixtures.reading import MIXTURES, load_reading, read_mixtures
from hpaloc.network.calls import call_labels, decision_thresholds, lean_on_field, settle_negative
from hpaloc.network.device import choose_precision, precision_policy, select_device
from hpaloc.network.inference import averaged
from hpaloc.network.loading import load_folder
from hpaloc.records import tile_dataset
from hpaloc.tables import LEANED, PROBABILITIES

log = logging.getLogger("hpaloc")


# Rows of a row group: enough for compression, few enough for memory.
ROW_GROUP = 4096


class PredictionError(ValueError):
    """Tiles and cell table do not match; the message names the cell."""


def prediction_schema(units: int, leaned: bool = False, mixtures: bool = False) -> pa.Schema:
    """Return the schema of a prediction table, with embeddings of ``units`` components.

    leaned, mixtures: whether it has probabilities that are shifted towards the field, and readings of mixtures
    """
    return pa.schema(
        [
            pa.field("field", pa.string()),
            pa.field("cell", pa.int32()),
            *(pa.field(name, pa.float32()) for name in PROBABILITIES),
            *(pa.field(name, pa.float32()) for name in LEANED if leaned),
            *(pa.field(name, pa.float32()) for name in MIXTURES if mixtures),
            pa.field("labels", pa.string()),
            pa.field("embedding", pa.list_(pa.float16(), units)),
        ]
    )


def _expected(cells: Path, fields: Collection[str] | None) -> Iterator[tuple[str, int]]:
    for batch in pq.ParquetFile(cells).iter_batches(ROW_GROUP, columns=["field", "cell"]):
        rows = zip(batch["field"].to_pylist(), batch["cell"].to_pylist(), strict=True)
        yield from rows if fields is None else ((field, cell) for field, cell in rows if field in fields)


# The largest number that an embedding can hold.
_LARGEST = np.finfo(np.float16).max
# Fields, ids, probabilities, readings of mixtures (no columns if the model has none), embeddings.
Batch = tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _whole_fields(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Regroup batches so that no field is split."""
    kept: Batch | None = None
    for batch in batches:
        if kept is not None:
            batch = (kept[0] + batch[0], *(np.concatenate(pair) for pair in zip(kept[1:], batch[1:], strict=True)))
        fields = batch[0]
        # The last field may continue in the next batch.
        end = fields.index(fields[-1])
        if end:
            yield fields[:end], batch[1][:end], batch[2][:end], batch[3][:end], batch[4][:end]
        kept = (fields[end:], batch[1][end:], batch[2][end:], batch[3][end:], batch[4][end:])
    if kept is not None:
        yield kept


def predict_shard(
    model_dir: Path,
    tiles: Mapping[str, Path],
    cells: Path,
    out: Path,
    views: int = 8,
    batch_size: int = 64,
    gpu: str = "auto",
    threads: int | None = None,
    precision: str = "auto",
    field_weight: float = 0.0,
    mixtures: bool = True,
    fields: Collection[str] | None = None,
) -> None:
    """Predict every cell of a shard, or of some of its fields, and write its table to ``out``, atomically.

    The rows are those of the cell table, in its order: field, cell, p_0 to p_18 (means over ``views`` dihedral views,
    Negative by the rule of the model folder), leaned_0 to leaned_18 with a weight of the field, mixture_0 to mixture_18
    if the folder reads mixtures, labels (the set above the folder's thresholds for that weight, ``0|16``), embedding
    (float16). All but leaned and labels are of the cell alone, whatever the weight. Memory holds a few thousand rows,
    whatever the size of the shard.

    tiles: the TFRecord of each colour that the model takes
    cells: the cell table of the shard
    field_weight: how far the leaned probabilities are shifted towards the field, see ``lean_on_field``
    mixtures: whether to read mixtures
    fields: those whose cells are predicted, which may be of other shards too; None for all

    Raises ModelError for a model folder that was changed, NoGpuError, and PredictionError if tiles and cell table
    differ.
    """
    select_device(gpu, threads)
    policy = choose_precision(precision)
    log.info("precision: %s", policy)
    with precision_policy(policy):
        model, config, decision = load_folder(model_dir)
        forward = averaged(model, views)
    reading = load_reading(model_dir) if mixtures else None
    channels = config["channels"]
    missing = [colour for colour in channels if colour not in tiles]
    if missing:
        raise PredictionError(f"the model needs tiles of {', '.join(missing)}, which are missing")
    thresholds = decision_thresholds(decision, field_weight)
    if field_weight and thresholds is not None and "leaned_thresholds" not in decision:
        log.warning("%s has thresholds for predict.field_weight 0 only; they are used for %g", model_dir, field_weight)
    threads = threads or os.cpu_count() or 1
    if fields is not None:
        fields = set(pq.read_table(cells, columns=["field"])["field"].unique().to_pylist()) & set(fields)
    paths = {colour: [str(tiles[colour])] for colour in channels}
    images = tile_dataset(paths, channels, config["input_size"], fields)
    images = images.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    total = sum(1 for _ in _expected(cells, fields))
    schema = prediction_schema(config["units"], field_weight > 0, reading is not None)
    start = time.monotonic()

    def batches() -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as beside:
            for batch in images:
                tiles = batch["image"].numpy()
                # While the network runs, often on a GPU.
                light = beside.submit(measure_light, tiles, channels, threads) if reading is not None else None
                probabilities, embeddings = (output.numpy() for output in forward(batch["image"]))
                probabilities = settle_negative(probabilities, decision["negative_rule"])
                read = np.zeros((len(tiles), 0))
                if reading is not None and light is not None:
                    read = read_mixtures(reading, probabilities, light.result())
                names = [name.decode() for name in batch["field"].numpy()]
                yield names, batch["cell"].numpy(), probabilities, read, embeddings

    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        expected = _expected(Path(cells), fields)
        done, waiting, n_waiting = 0, [], 0
        for names, ids, probabilities, read, embeddings in _whole_fields(batches()) if field_weight else batches():
            for field, cell in zip(names, ids.tolist(), strict=True):
                wanted = next(expected, None)
                if wanted != (field, cell):
                    raise PredictionError(f"tile of cell {cell} of field {field}, but {cells} has {wanted}")
            leaned = lean_on_field(probabilities, names, field_weight, config["head"] == "softmax")
            sets = [format_labels(labels) for labels in call_labels(leaned, thresholds)]
            # A larger number, as of a network that was hardly trained, would be infinite.
            flat = pa.array(np.clip(embeddings, -_LARGEST, _LARGEST).astype(np.float16).ravel())
            columns = [
                pa.array(names),
                pa.array(ids),
                *(pa.array(column) for column in (*probabilities.T, *(leaned.T if field_weight else ()), *read.T)),
                pa.array(sets),
                pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]),
            ]
            waiting.append(pa.Table.from_arrays(columns, schema=schema))
            done += len(ids)
            n_waiting += len(ids)
            if n_waiting >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting, n_waiting = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
        if (extra := next(expected, None)) is not None:
            raise PredictionError(f"there is no tile of cell {extra[1]} of field {extra[0]}, which {cells} lists")
    seconds = time.monotonic() - start
    log.info("cells: %d of %d predicted in %.1f s (%.1f/s, %d views)", done, total, seconds, done / seconds, views)
