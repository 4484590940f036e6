"""The answers of the network and its controls to the studied cells, in one folder."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hpaloc.files import atomic_directory
from hpaloc.interpretation.layers import (
    LAYERS,
    driving_patches,
    field_map,
    fields_to_map,
    layer_answers,
    layer_receptive_fields,
    random_network,
    read_tiles,
)
from hpaloc.joining import read_cells, read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import read_manifests
from hpaloc.network.device import select_device
from hpaloc.network.fully_convolutional import FullyConvolutionalResNet50
from hpaloc.network.inference import fold_batch_norm
from hpaloc.network.loading import load_folder
from hpaloc.progress import log, track

# The order of units in a layer means nothing, so the first represent all.
UNITS, PATCHES = 6, 5


def study_networks(
    cells: pd.DataFrame,
    collections: Mapping[str, CollectionFiles],
    models: Mapping[str, Path],
    out: Path,
    fields: int,
    seed: int,
    gpu: str = "auto",
    threads: int = 1,
    batch_size: int = 64,
) -> None:
    """Run the cells through the network and its controls, and write their answers.

    cells: a table STUDIED
    models: ``trained`` and, if there are such, ``shuffled_labels`` and ``held_out``, each to its folder, all with the
        same input; a network with random weights is made here

    ``out`` gets

    - features.npz: ``<network>/<layer>`` (n, d) float32, in the order of ``cells``, nan if a network does not apply to
      a cell;
    - patches.npz: per layer (units, 2, patches, side, side, colours) uint8, see ``driving_patches``;
    - receptive_fields.csv, see ``layer_receptive_fields``;
    - kernels.npz: first kernels ``<network>`` (7, 7, colours, filters);
    - maps.npz: for each of ``fields`` fields ``<i>/picture`` and ``<i>/maps``, see ``field_map``; maps.csv: its rows
      collection, field, label, pixel_size.

    Raises ValueError naming a model folder with other colours or another input size, and as ``read_tiles`` and
    ``loading.load_folder`` do.
    """
    select_device(gpu, threads)
    loaded = {name: load_folder(folder)[:2] for name, folder in models.items()}
    trained, config = loaded["trained"]
    channels, size = config["channels"], config["input_size"]
    for name, (_, other) in loaded.items():
        if (other["channels"], other["input_size"]) != (channels, size):
            raise ValueError(f"{models[name]}: its colours or input size are not those of {models['trained']}")
    images = np.empty((len(cells), size, size, len(channels)), np.uint8)
    for collection, rows in cells.groupby("collection").indices.items():
        files = collections[str(collection)]
        tiles = {colour: files.of_shards("tiles", colour) for colour in channels}
        images[rows] = read_tiles(cells.iloc[rows], tiles, channels, size, threads)
    mapped = np.flatnonzero(cells["mapped"])
    networks = {name: network for name, (network, _) in loaded.items()}
    networks["random"] = random_network(config, images[mapped], seed, batch_size)
    folded = {name: fold_batch_norm(network) for name, network in networks.items()}
    few_shot = np.flatnonzero(cells["few_shot"])
    features: dict[str, np.ndarray] = {}
    extremes: dict[str, dict[str, np.ndarray]] = {}
    for name, network in folded.items():
        log.info("layers of the network %s", name)
        # The network without the held-out classes runs on their cells only; of the others, the random one does too.
        rows = few_shot if name == "held_out" else np.arange(len(cells))
        if name != "random" and name != "held_out" and "held_out" in folded:
            rows = mapped
        found, ends = layer_answers(network, images[rows], UNITS if name == "trained" else 0, batch_size)
        for layer, of_rows in found.items():
            every = np.full((len(cells), of_rows.shape[1]), np.nan, np.float32)
            every[rows] = of_rows
            features[f"{name}/{layer}"] = every
        if ends:
            of_mapped = np.isin(rows, mapped)
            extremes = {layer: {what: of[of_mapped] for what, of in own.items()} for layer, own in ends.items()}
    fields_of_cells = (cells["collection"] + "/" + cells["field"]).to_numpy()[mapped]
    receptive = layer_receptive_fields(folded["trained"], images[mapped])
    sides = dict(zip(receptive["layer"], receptive["patch"], strict=True))
    patches = {
        layer: driving_patches(images[mapped], fields_of_cells, extremes[layer], sides[layer], PATCHES)
        for layer in LAYERS
    }
    kernels = {name: network.get_layer("conv1_conv").get_weights()[0] for name, network in networks.items()}
    twin = FullyConvolutionalResNet50(trained)
    pictures: dict[str, np.ndarray] = {}
    rows_of_maps = []
    chosen = fields_to_map(cells, fields)
    for number, (collection, field, label) in enumerate(track(chosen, what="fields mapped")):
        files = collections[collection]
        manifest = {row.id: row for row in read_manifests(files.of_shards("manifest"))}
        levels = read_fields(files.of_shards("fields")).query("field == @field")
        boxes = read_cells(files.of_shards("cells")).query("field == @field")
        box = float(np.median(np.maximum(boxes["y1"] - boxes["y0"], boxes["x1"] - boxes["x0"])))
        white = {colour: float(levels[f"{colour}_white"].iloc[0]) for colour in channels}
        row = replace(manifest[field], pixel_size=float(levels["pixel_size"].iloc[0]))
        picture, maps, pixel_size = field_map(twin, row, white, channels, box)
        pictures |= {f"{number}/picture": picture, f"{number}/maps": maps}
        rows_of_maps.append((collection, field, label, pixel_size))
    with atomic_directory(out) as folder:
        for name, arrays in (("features", features), ("patches", patches), ("kernels", kernels), ("maps", pictures)):
            np.savez(folder / f"{name}.npz", **arrays)
        receptive.to_csv(folder / "receptive_fields.csv", index=False, float_format="%.6g")
        pd.DataFrame(rows_of_maps, columns=["collection", "field", "label", "pixel_size"]).to_csv(
            folder / "maps.csv", index=False
        )
        (folder / "channels.txt").write_text("\n".join(channels) + "\n")
