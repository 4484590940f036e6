"""The files of a model folder, checked before anything is built from them, without TensorFlow."""

import importlib.util
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.files import digest, unpacks_within, write_json
from hpaloc.network.options import FIELD_WEIGHTS, HEADS, LEVELS_EDITION, NEGATIVE_RULES, ModelError, check_channels

# Of a .keras file; a ResNet-50 has 100 MB.
_MOST_BYTES = 2**31


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Return the table of a JSON file; raise ModelError if it is not JSON or a key is missing."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is not JSON ({error})") from None
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            raise ModelError(f"{path}: the key {key!r} is missing")
    return values


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config.json and thresholds.json of a model folder; raise ModelError naming the invalid file and key.

    A folder may come from elsewhere: its values are checked before a network is built from it.
    """
    path = folder / "config.json"
    config = read_json(path, ("channels", "head", "input_size", "units", "dropout", "classes"))
    if config["classes"] != list(NAMES):
        raise ModelError(f"{path}: its classes are not the {N_CLASSES} of hpaloc")
    if config["head"] not in HEADS:
        raise ModelError(f"{path}: head is {config['head']!r}, not one of {', '.join(HEADS)}")
    for key, least, most in (("input_size", 32, 1024), ("units", 1, 2**16)):
        if type(config[key]) is not int or not least <= config[key] <= most:
            raise ModelError(f"{path}: {key} is {config[key]!r}, not a whole number from {least} to {most}")
    channels = config["channels"]
    if not isinstance(channels, list) or not all(isinstance(colour, str) for colour in channels):
        raise ModelError(f"{path}: channels is {channels!r}, not a list of colours")
    try:
        check_channels(channels)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    rates = config["dropout"]
    if not isinstance(rates, list) or len(rates) != 2 or not all(type(rate) in (int, float) for rate in rates):
        raise ModelError(f"{path}: dropout is {rates!r}, not two numbers")
    if not all(0 <= rate < 1 for rate in rates):
        raise ModelError(f"{path}: dropout is {rates!r}, not two rates from 0 to below 1")
    made = config.get("preprocessing")
    edition = made.get("levels", 1) if isinstance(made, dict) else 1
    if edition != LEVELS_EDITION:
        raise ModelError(
            f"{path}: the network was trained on tiles of edition {edition!r} of the levels, but tiles are scaled by "
            f"edition {LEVELS_EDITION} now; train it again, or use the hpaloc that made it"
        )
    path = folder / "thresholds.json"
    decision = read_json(path, ("thresholds", "negative_rule"))
    check_decision(path, decision)
    return config, decision


def check_decision(path: Path, decision: Mapping[str, Any]) -> None:
    """Raise ModelError, naming ``path`` and the invalid key, unless a decision is from ``decision.fit_decision``."""
    if decision["negative_rule"] not in NEGATIVE_RULES:
        raise ModelError(
            f"{path}: negative_rule is {decision['negative_rule']!r}, not one of {', '.join(NEGATIVE_RULES)}"
        )
    leaned = decision.get("leaned_thresholds", {})
    if not isinstance(leaned, dict) or not set(leaned) <= set(FIELD_WEIGHTS):
        raise ModelError(f"{path}: leaned_thresholds is {leaned!r}, not a table of the weights 0.1 to 1.0")
    tables = {f"leaned_thresholds.{weight}": table for weight, table in leaned.items()}
    # A softmax model has none.
    tables |= {} if decision["thresholds"] is None else {"thresholds": decision["thresholds"]}
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise ModelError(f"{path}: {key} is {table!r}, not a table of locations")
        for name, value in table.items():
            if name not in NAMES or type(value) not in (int, float) or not -np.inf < value < np.inf:
                raise ModelError(f"{path}: {key} has {value!r} for {name!r}, not a number for a known location")
    temperature = decision.get("temperature")
    if temperature is not None and (type(temperature) not in (int, float) or not 0 < temperature < np.inf):
        raise ModelError(f"{path}: temperature is {temperature!r}, not a number above 0")
    try:
        prototype_table(decision.get("prototypes"))
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None


def prototype_table(named: Any) -> np.ndarray:
    """Return the class prototypes of a JSON file as (19, 19) float64; the row of a location without one is nan.

    named: the name of a location to the 19 mean outputs of its cells, or to null; or null itself

    Raises ValueError naming the location whose prototype is not 19 numbers.
    """
    prototypes = np.full((N_CLASSES, N_CLASSES), np.nan)
    if named is None:
        return prototypes
    if not isinstance(named, dict):
        raise ValueError(f"prototypes is {named!r}, not a table of locations")
    for name, row in named.items():
        try:
            values = np.full(N_CLASSES, np.nan) if row is None else np.array(row, np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if name not in NAMES or values.shape != (N_CLASSES,):
            raise ValueError(f"the prototype of {name!r} is not {N_CLASSES} numbers for a known location")
        prototypes[NAMES.index(name)] = values
    return prototypes


def write_checksums(folder: Path, names: Sequence[str], to: str = "checksums.json") -> None:
    """Write the SHA-256 digest of each named file of a model folder to the file ``to`` of the folder."""
    write_json(folder / to, {name: digest(folder / name) for name in names})


def check_folder(folder: Path) -> None:
    """Raise ModelError unless every file that checksums.json lists is there and unchanged."""
    if not (Path(folder) / "checksums.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no checksums.json")
    check_files(Path(folder), "checksums.json", ("model.keras", "config.json", "thresholds.json"))


def check_files(folder: Path, checksums: str, needed: Sequence[str]) -> None:
    """Raise ModelError unless ``checksums`` lists the ``needed`` files and every listed file is unchanged."""
    path = folder / checksums
    if not path.is_file():
        raise ModelError(f"{path} is missing")
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        sums = None
    if not isinstance(sums, dict) or not all(isinstance(expected, str) for expected in sums.values()):
        raise ModelError(f"{path} is not a table of digests")
    for name in sums:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ModelError(f"{path} names {name}, which is not a file of the folder")
    for name in needed:
        if name not in sums:
            raise ModelError(f"{path} does not list {name}")
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name} is missing")
        if digest(folder / name) != expected:
            raise ModelError(f"{folder / name} was changed after the model folder was written ({checksums})")


def check_network(path: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError unless the arrays of a .keras file fit the colours and units of config.json.

    The network is not built. Without h5py, which a process that only plans may lack, the arrays are not compared.
    """
    told = f"{path} does not hold the network that config.json describes"
    try:
        with zipfile.ZipFile(path) as archive:
            if not unpacks_within(archive, _MOST_BYTES):
                raise ModelError(f"{told}: it unpacks to more than a network has, or is not compressed by Deflate")
            content = archive.read("model.weights.h5")
    except zipfile.BadZipFile:
        raise ModelError(f"{told}: File is not a zip file") from None
    except KeyError:
        raise ModelError(f"{told}: it has no model.weights.h5") from None
    shapes = _shapes(io.BytesIO(content), told)
    units = config["units"]
    for what, wanted in (
        ("the first convolution", (7, 7, len(config["channels"]), 64)),
        ("the dense layer", (2048, units)),
        ("the output", (units, N_CLASSES)),
    ):
        if shapes is not None and wanted not in shapes:
            raise ModelError(f"{told}: {what} is not of shape {' x '.join(map(str, wanted))}")


def check_starting_weights(weights: str) -> None:
    """Raise ModelError unless a training can start from a file, as far as can be seen without building the network.

    ``weights`` is a .h5 file of Keras' ResNet-50, or the .keras file of a model folder of hpaloc.
    """
    path = Path(weights)
    if not path.is_file():
        raise ModelError(f"config key train.weights: no such file: {weights}")
    if path.suffix == ".keras":
        for name in ("config.json", "thresholds.json", "checksums.json"):
            if not path.with_name(name).is_file():
                raise ModelError(f"config key train.weights: {weights} is not in a model folder ({name} is missing)")
        check_folder(path.parent)
        check_network(path, read_settings(path.parent)[0])
    elif path.suffix == ".h5":
        _check_stock(path)
    else:
        raise ModelError(f"config key train.weights: {weights} is neither a .keras nor a .h5 file")


def _check_stock(path: Path) -> None:
    """Raise ModelError unless a .h5 file has the weighted layers of Keras' ResNet-50 without its top."""
    layers = ["conv1_conv", "conv1_bn"]
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(1, blocks + 1):
            steps = (0, 1, 2, 3) if block == 1 else (1, 2, 3)
            layers += [f"conv{stage}_block{block}_{step}_{kind}" for step in steps for kind in ("conv", "bn")]
    told = f"config key train.weights: {path} is not a file of weights"
    if _shapes(path, told) is None:
        return
    import h5py

    with h5py.File(path) as file:
        if "layers" in file:
            # Keras 3 writes no names of layers.
            with_arrays = [name for name, group in file["layers"].items() if len(group.get("vars", ()))]
            if len(with_arrays) == len(layers):
                return
            raise ModelError(
                f"config key train.weights: {path} does not hold Keras' ResNet50 without its top (include_top=False): "
                f"it has {len(with_arrays)} layers with arrays, not {len(layers)}"
            )
        groups = file.get("model_weights", file)
        found = {name for name, group in groups.items() if isinstance(group, h5py.Group) and len(group)}
    if found != set(layers):
        odd = sorted(found ^ set(layers))[0]
        what = "unexpected" if odd in found else "missing"
        raise ModelError(
            f"config key train.weights: {path} does not hold Keras' ResNet50 without its top (include_top=False): "
            f"the layer {odd} is {what}"
        )


def _shapes(file: Path | io.BytesIO, told: str) -> set[tuple[int, ...]] | None:
    """Return the shapes of all arrays of an HDF5 file; None if h5py is not installed."""
    if importlib.util.find_spec("h5py") is None:
        return None
    import h5py

    found = set()

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.add(item.shape)

    try:
        with h5py.File(file) as archive:
            archive.visititems(note)
    except OSError as error:
        raise ModelError(f"{told}: {error}") from None
    return found
