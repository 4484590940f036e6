"""Where the files of a collection and of its shards are, for the rules and for the library."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# By kind, with Snakemake's wildcards; each rule writes out its outputs in the same words (a test).
PATTERNS = {
    # Of a shard.
    "manifest": "results/sheet/{collection}/{shard}.csv",
    "annotations": "results/sheet/{collection}/{shard}.annotations.csv",
    "simulated": "resources/simulated/{collection}/{shard}",
    "downloaded": "resources/downloaded/{collection}/{shard}.csv",
    "imported": "results/imported/{collection}/{shard}",
    "segmentation": "results/segmentation/{collection}/{shard}",
    "cells": "results/cells/{collection}/{shard}.parquet",
    "fields": "results/cells/{collection}/{shard}.fields.parquet",
    "tiles": "results/tiles/{collection}/{shard}/{colour}.tfrecord",
    "baselines": "results/baselines/{collection}/{shard}.parquet",
    "predictions": "results/predictions/{collection}/shards/{shard}.parquet",
    "pictures": "results/browser/{collection}/{shard}",
    # Of a collection.
    "columns": "results/sheet/{collection}/columns.csv",
    "groups": "results/sheet/{collection}/groups.csv",
    "true_states": "results/sheet/{collection}/truth.csv",
    "pooled_cells": "results/predictions/{collection}/cells.parquet",
    "pooled_fields": "results/predictions/{collection}/fields.parquet",
    "anndata": "results/predictions/{collection}/cells.h5ad",
    "scored_cells": "results/evaluation/{collection}/cells.parquet",
}
# The kinds of what a network says of a collection; in a cross-validation they are in a folder of their own.
_PREDICTED = {"predictions", "pictures", "pooled_cells", "pooled_fields", "anndata", "scored_cells"}


@dataclass(frozen=True)
class CollectionFiles:
    """The files of one collection, and those of its true cells if it has any.

    shards: their names, in the order in which tables count them
    true_cells: tables with ID, cell and Label (``truth.read_true_cells``)
    true_masks: pattern of the label images of true cells; if the run makes them, with ``{id}`` and ``{shard}``
    true_states: the table truth.csv of the true masks and their states at planning; None if the run makes them
    folder: the working folder of the workflow
    of_2018: whether numbers in ``true_cells`` are those of the competition of 2018
    predicted_in: the folder that has predictions, pictures and scores; a cross-validation has its own
    """

    name: str
    shards: Sequence[str] = ()
    true_cells: Sequence[str | os.PathLike[str]] = ()
    true_masks: str = ""
    true_states: str | os.PathLike[str] | None = None
    folder: str | os.PathLike[str] = ""
    of_2018: bool = False
    predicted_in: str = "results"

    def path(self, kind: str, shard: str = "", colour: str = "") -> Path:
        """Return the file of a kind (of PATTERNS) of the collection or of a shard; tiles need a colour."""
        pattern = PATTERNS[kind]
        if kind in _PREDICTED:
            pattern = self.predicted_in + pattern.removeprefix("results")
        return Path(self.folder, pattern.format(collection=self.name, shard=shard, colour=colour))

    def of_shards(self, kind: str, colour: str = "") -> list[Path]:
        """Return the files of a kind (of PATTERNS) of all shards in their order."""
        return [self.path(kind, shard, colour) for shard in self.shards]
