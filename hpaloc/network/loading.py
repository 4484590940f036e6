"""The network of a model folder."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from hpaloc.network.folder import check_folder, check_network, read_settings
from hpaloc.network.options import ModelError
from hpaloc.network.resnet import classifier


def load_folder(folder: Path, name: str = "model.keras") -> tuple[keras.Model, dict[str, Any], dict[str, Any]]:
    """Return (classifier, config, thresholds) of a model folder whose files agree with its checksums.json.

    The network is built from config.json by ``classifier``, and only the arrays of ``name`` are read, so that no code
    or class in the file ever runs. Raises ModelError naming a file that is missing or was changed, or a folder with
    another list of classes, and OSError naming the temporary folder if it cannot be written.
    """
    folder = Path(folder)
    check_folder(folder)
    config, thresholds = read_settings(folder)
    check_network(folder / name, config)
    model = classifier(
        config["channels"], config["head"], config["input_size"], dropout=config["dropout"], units=config["units"]
    )
    with _arrays(folder / name) as arrays:
        try:
            model.load_weights(arrays)
        except Exception as error:
            # The rest of Keras' message prints the arrays.
            reason = str(error).split(" Example error", 1)[0].split("\n", 1)[0]
            raise ModelError(
                f"{folder / name} does not hold the network that config.json describes: {reason}"
            ) from error
    return model, config, thresholds


@contextmanager
def _arrays(path: Path) -> Iterator[str]:
    """Yield a file of the arrays of a .keras file, in the temporary folder until they are read.

    Out of the archive, each of h5py's steps back would read the file from its start.
    """
    try:
        # Keras keeps a file open that it could not read.
        folder = tempfile.TemporaryDirectory(prefix="hpaloc-model-", ignore_cleanup_errors=True)
        with zipfile.ZipFile(path) as archive:
            arrays = archive.extract("model.weights.h5", folder.name)
    except OSError as error:
        raise OSError(
            f"the arrays of {path} cannot be unpacked into the temporary folder ({error.strerror or error}); "
            "set TMPDIR to a writable folder with space"
        ) from error
    with folder:
        yield arrays
