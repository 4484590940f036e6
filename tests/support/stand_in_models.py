"""Model folders that pass every check without a network, for plans and jobs that do nothing."""

import io
import json
import zipfile

import h5py
import numpy as np

from hpaloc.baselines.record import REGRESSIONS, write_baselines
from hpaloc.classes import NAMES
from hpaloc.network.folder import write_checksums
from hpaloc.network.fusion import write_fusion
from hpaloc.network.options import LEVELS_EDITION
from hpaloc.planning.settings import BASELINE_FILES, FUSION_FILES
from hpaloc.seen.record import Seen, add_seen, write_seen

CHANNELS, UNITS = ("red", "green", "blue"), 8


def write_stock(path, but=(), value=0):
    """Write a file of the layers of Keras' ResNet-50 without its top, without or with those in ``but``; return it."""
    names = {"conv1_conv", "conv1_bn"}
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(1, blocks + 1):
            for step in range(0 if block == 1 else 1, 4):
                names |= {f"conv{stage}_block{block}_{step}_{kind}" for kind in ("conv", "bn")}
    with h5py.File(path, "w") as file:
        for name in names ^ set(but):
            file[f"{name}/{name}/kernel:0"] = np.full(1, value)
        file.create_group("conv1_relu")
    return path


def write_stand_in(folder, content=0, mask_neighbours=None):
    """Write a folder whose arrays have the shapes of a network and hold ``content``; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = io.BytesIO()
    with h5py.File(arrays, "w") as file:
        for index, shape in enumerate(((7, 7, len(CHANNELS), 64), (2048, UNITS), (UNITS, len(NAMES)))):
            file[f"layers/{index}"] = np.full(shape, content, np.uint8)
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        # With the time of no clock: equal content is equal bytes.
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), arrays.getvalue())
    config = {"channels": CHANNELS, "head": "sigmoid", "input_size": 32, "units": UNITS, "dropout": [0.5, 0.25]}
    config["preprocessing"] = {"levels": LEVELS_EDITION}
    if mask_neighbours is not None:
        config["preprocessing"]["tiles"] = {"size": 256, "mask_neighbours": mask_neighbours}
    (folder / "config.json").write_text(json.dumps({**config, "classes": NAMES}))
    (folder / "thresholds.json").write_text(json.dumps({"thresholds": None, "negative_rule": "complement"}))
    write_checksums(folder, ("model.keras", "config.json", "thresholds.json"))
    return folder


def write_packable(folder, content=0, fused=False):
    """Write a folder as ``write_stand_in`` does, which also says that nothing trained it; return its files.

    fused: whether it has a fusion too
    """
    write_stand_in(folder, content)
    nothing = {name: np.zeros(0, np.uint64) for name in ("ids", "images", "values")}
    write_seen(
        folder / "nothing.npz", Seen(**nothing, hashes=np.zeros((0, 3), np.uint64), cells=np.zeros((0, 14), np.int16))
    )
    add_seen(folder, folder / "nothing.npz")
    names = ["model.keras", "config.json", "thresholds.json", "checksums.json", "seen.npz", "seen.checksums.json"]
    if fused:
        add_fusion(folder)
        names += [*BASELINE_FILES, *FUSION_FILES]
    return [folder / name for name in names]


def add_fusion(folder):
    """Fuse the network of a folder with a regression that has learned nothing."""
    regression = {"classes": NAMES[:1], "mean": [0], "scale": [1], "coefficients": [[0]], "intercept": [0]}
    write_baselines(folder, {"validation_accuracy": {}, **dict.fromkeys(REGRESSIONS, regression)})
    write_fusion(folder, 0.5, {"thresholds": None, "negative_rule": "complement"}, {}, {})
