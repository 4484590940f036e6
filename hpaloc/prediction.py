"""Per-cell prediction: a shard's tiles through a model folder into one Parquet table, batch by batch."""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from hpaloc.baselines.prediction import regress_cells
from hpaloc.classes import format_labels
from hpaloc.files import atomic_path
from hpaloc.mixtures.light import measure_light
from hpaloc.mixtures.reading import MIXTURES, load_reading, read_mixtures
from hpaloc.network.calls import call_labels, decision_thresholds, fuse, lean_on_field, settle_negative
from hpaloc.network.device import choose_precision, precision_policy, select_device
from hpaloc.network.fusion import load_fusion
from hpaloc.network.inference import averaged
from hpaloc.network.loading import load_folder
from hpaloc.progress import log
from hpaloc.records import tile_dataset
from hpaloc.tables import LEANED, NETWORK, PROBABILITIES

# Rows of a row group: enough for compression, few enough for memory.
ROW_GROUP = 4096
# The largest number that an embedding can hold.
_LARGEST = np.finfo(np.float16).max


class PredictionError(ValueError):
    """Tiles and cell table do not match; the message names the cell."""


def prediction_schema(units: int, fused: bool = False, leaned: bool = False, mixtures: bool = False) -> pa.Schema:
    """Return the schema of a prediction table, with embeddings of ``units`` components.

    fused, leaned, mixtures: whether it has probabilities of the network alone, those that are shifted towards the
        field, and readings of mixtures
    """
    return pa.schema(
        [
            pa.field("field", pa.string()),
            pa.field("cell", pa.int32()),
            *(pa.field(name, pa.float32()) for name in PROBABILITIES),
            *(pa.field(name, pa.float32()) for name in NETWORK if fused),
            *(pa.field(name, pa.float32()) for name in LEANED if leaned),
            *(pa.field(name, pa.float32()) for name in MIXTURES if mixtures),
            pa.field("labels", pa.string()),
            pa.field("embedding", pa.list_(pa.float16(), units)),
        ]
    )


class Batch(NamedTuple):
    """Cells, one per row; ``network`` has no columns without a fusion, ``mixtures`` has none without a reading."""

    fields: list[str]
    cells: np.ndarray
    probabilities: np.ndarray
    network: np.ndarray
    mixtures: np.ndarray
    embeddings: np.ndarray


def _read_ids(cells: Path, fields: Collection[str] | None) -> list[tuple[str, int]]:
    """Return field and cell of the rows of a cell table that are of ``fields``, in its order."""
    table = pq.read_table(cells, columns=["field", "cell"])
    rows = zip(table["field"].to_pylist(), table["cell"].to_pylist(), strict=True)
    return [(field, cell) for field, cell in rows if fields is None or field in fields]


def _predict(
    images: tf.data.Dataset,
    forward: Any,
    negative_rule: str,
    reading: Mapping[str, Any] | None,
    channels: Sequence[str],
    threads: int,
) -> Iterator[Batch]:
    """Predict batches of tiles, and read their mixtures if there is a reading."""
    with ThreadPoolExecutor(1) as pool:
        for batch in images:
            tiles = batch["image"].numpy()
            # While the network runs, often on a GPU.
            light = pool.submit(measure_light, tiles, channels, threads) if reading is not None else None
            probabilities, embeddings = (output.numpy() for output in forward(batch["image"]))
            probabilities = settle_negative(probabilities, negative_rule)
            none = np.zeros((len(tiles), 0))
            mixtures = none
            if reading is not None and light is not None:
                mixtures = read_mixtures(reading, probabilities, light.result())
            fields = [name.decode() for name in batch["field"].numpy()]
            yield Batch(fields, batch["cell"].numpy(), probabilities, none, mixtures, embeddings)


def _check_cells(batches: Iterable[Batch], expected: Sequence[tuple[str, int]], cells: Path) -> Iterator[Batch]:
    """Yield batches; raise PredictionError unless all of them together have the expected cells in their order."""
    to_come = iter(expected)
    for batch in batches:
        for field, cell in zip(batch.fields, batch.cells.tolist(), strict=True):
            wanted = next(to_come, None)
            if wanted != (field, cell):
                raise PredictionError(f"tile of cell {cell} of field {field}, but {cells} has {wanted}")
        yield batch
    if (extra := next(to_come, None)) is not None:
        raise PredictionError(f"there is no tile of cell {extra[1]} of field {extra[0]}, which {cells} lists")


def _fuse(
    batches: Iterable[Batch], regression: np.ndarray, fusion: Mapping[str, Any], normalise: bool
) -> Iterator[Batch]:
    """Fuse the probabilities of batches with those of a regression for all cells; keep those of the network alone."""
    start = 0
    for batch in batches:
        end = start + len(batch.cells)
        fused = fuse(batch.probabilities, regression[start:end], fusion["weight"], normalise)
        start = end
        settled = settle_negative(fused, fusion["negative_rule"])
        yield batch._replace(probabilities=settled, network=batch.probabilities)


def _whole_fields(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Regroup batches so that no field is split."""
    kept: Batch | None = None
    for batch in batches:
        if kept is not None:
            joined = (np.concatenate(pair) for pair in zip(kept[1:], batch[1:], strict=True))
            batch = Batch(kept.fields + batch.fields, *joined)
        fields = batch.fields
        # The last field may continue in the next batch.
        end = fields.index(fields[-1])
        if end:
            yield _cut(batch, slice(end))
        kept = _cut(batch, slice(end, None))
    if kept is not None:
        yield kept


def _cut(batch: Batch, rows: slice) -> Batch:
    return Batch(batch.fields[rows], *(values[rows] for values in batch[1:]))


def _to_table(
    batch: Batch, schema: pa.Schema, thresholds: np.ndarray | None, field_weight: float, normalise: bool
) -> pa.Table:
    """Return the rows of a batch, whose fields are whole if there is a weight of the field."""
    leaned = lean_on_field(batch.probabilities, batch.fields, field_weight, normalise)
    outputs = [batch.probabilities, batch.network, *([leaned] if field_weight else []), batch.mixtures]
    # A larger number, as of a network that was hardly trained, would be infinite.
    flat = pa.array(np.clip(batch.embeddings, -_LARGEST, _LARGEST).astype(np.float16).ravel())
    columns = [
        pa.array(batch.fields),
        pa.array(batch.cells),
        *(pa.array(column) for of_cells in outputs for column in of_cells.T),
        pa.array([format_labels(labels) for labels in call_labels(leaned, thresholds)]),
        pa.FixedSizeListArray.from_arrays(flat, batch.embeddings.shape[1]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _join_rows(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join tables into ones that have the rows of a row group."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


class Predictor:
    """A model folder that is ready to predict shards.

    model_dir: with the network and what was added to it
    views: dihedral views of each tile
    batch_size: tiles that run through the network together
    gpu, threads, precision: see ``device.select_device`` and ``device.choose_precision``
    mixtures: whether mixtures are read, if the folder can

    Raises ModelError for a model folder that was changed, NoGpuError.
    """

    def __init__(
        self,
        model_dir: Path,
        views: int = 8,
        batch_size: int = 64,
        gpu: str = "auto",
        threads: int | None = None,
        precision: str = "auto",
        mixtures: bool = True,
    ) -> None:
        select_device(gpu, threads, precision=precision, batch_size=batch_size)
        with precision_policy(choose_precision(precision)):
            model, self._config, self._decision = load_folder(model_dir)
            self._forward = averaged(model, views)
        self._reading = load_reading(model_dir) if mixtures else None
        self._model_dir, self._views, self._batch_size = model_dir, views, batch_size
        self._threads = threads or os.cpu_count() or 1

    def predict_shard(
        self,
        tiles: Mapping[str, Path],
        cells: Path,
        out: Path,
        field_weight: float = 0.0,
        measures: Path | None = None,
        fields: Collection[str] | None = None,
    ) -> None:
        """Predict every cell of a shard, or of some of its fields, and write its table to ``out``, atomically.

        The rows are those of the cell table, in its order: field, cell, p_0 to p_18 (means over the views, Negative by
        the rule of the model folder; fused with the regression of the folder), network_0 to network_18 (of the network
        alone, if they are fused), leaned_0 to leaned_18 with a weight of the field, mixture_0 to mixture_18 if the
        folder reads mixtures, labels (the set above the folder's thresholds for that weight, ``0|16``), embedding
        (float16). All but leaned and labels are of the cell alone, whatever the weight. Memory holds the ids of all
        cells, the regression's probabilities, and the other columns of a few thousand rows.

        tiles: the TFRecord of each colour that the model takes
        cells: the cell table of the shard
        field_weight: how far the leaned probabilities are shifted towards the field, see ``lean_on_field``
        measures: the table of ``measures.measure_shard`` of the shard; with None, the probabilities are not fused
        fields: those whose cells are predicted, which may be of other shards too; None for all

        Raises PredictionError if tiles and cell table differ, and ModelError if a cell is not measured or the fusion of
        the folder was changed.
        """
        config, channels = self._config, self._config["channels"]
        missing = [colour for colour in channels if colour not in tiles]
        if missing:
            raise PredictionError(f"the model needs tiles of {', '.join(missing)}, which are missing")
        fusion = load_fusion(self._model_dir) if measures is not None else None
        in_use = fusion or self._decision
        thresholds = decision_thresholds(in_use, field_weight)
        if field_weight and thresholds is not None and "leaned_thresholds" not in in_use:
            told = "%s has thresholds for predict.field_weight 0 only; they are used for %g"
            log.warning(told, self._model_dir, field_weight)
        expected = _read_ids(Path(cells), fields)
        paths = {colour: [str(tiles[colour])] for colour in channels}
        # Each tile is compared with all of these fields, and those of other shards would only take time.
        own = None if fields is None else {field for field, _ in expected}
        dataset = tile_dataset(paths, channels, config["input_size"], own)
        images = dataset.batch(self._batch_size).prefetch(tf.data.AUTOTUNE)
        start = time.monotonic()
        rule, reading = self._decision["negative_rule"], self._reading
        predicted = _predict(images, self._forward, rule, reading, channels, self._threads)
        batches = _check_cells(predicted, expected, cells)
        softmax = config["head"] == "softmax"
        if fusion is not None and measures is not None:
            batches = _fuse(batches, regress_cells(self._model_dir, [measures], expected), fusion, softmax)
        if field_weight:
            batches = _whole_fields(batches)
        schema = prediction_schema(config["units"], fusion is not None, field_weight > 0, reading is not None)
        with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            made = (_to_table(batch, schema, thresholds, field_weight, softmax) for batch in batches)
            for rows in _join_rows(made):
                writer.write_table(rows)
        seconds = time.monotonic() - start
        count = len(expected)
        told = "%s: %d cells predicted in %.1f s (%.1f/s, %d views)"
        log.info(told, cells, count, seconds, count / seconds, self._views)
