"""A model with its preprocessing as one ONNX file, for programs without TensorFlow and hpaloc."""

import json
from pathlib import Path
from typing import Any

import keras
import onnx
import tensorflow as tf
import tf2onnx

from hpaloc import __version__
from hpaloc.classes import NAMES, NEGATIVE
from hpaloc.files import atomic_path
from hpaloc.levels import HEADROOM
from hpaloc.network.device import precision_policy
from hpaloc.network.inference import dihedral_view, fold_batch_norm
from hpaloc.network.loading import load_folder
from hpaloc.progress import log

# The newest that tf2onnx writes; onnxruntime reads it since 1.15.
_OPSET = 18


def _resizing(size: int, input_size: int) -> Any:
    """Return the function that resizes images (n, size, size, c) 0..255 as ``records.tile_dataset`` does.

    ONNX lacks the resizing of TensorFlow. It is linear and the same along rows and columns, so a matrix can do it.
    """
    if size == input_size:
        return lambda images: images
    # A tensor would become an input of the graph.
    matrix = tf.image.resize(tf.eye(size)[..., None], (input_size, size), antialias=True)[..., 0].numpy()

    def resize(images: Any) -> Any:
        planes = tf.transpose(images, (0, 3, 1, 2))
        resized = tf.matmul(tf.matmul(matrix, planes), matrix, transpose_b=True)
        return tf.round(tf.transpose(resized, (0, 2, 3, 1)))

    return resize


def _settled(probabilities: Any, rule: str) -> Any:
    """Return the probabilities with Negative by the rule of the model folder, see ``calls.settle_negative``."""
    if rule == "network":
        return probabilities
    before, negative, after = tf.split(probabilities, (NEGATIVE, 1, len(NAMES) - NEGATIVE - 1), axis=1)
    others = tf.concat([before, after], axis=1)
    complement = 1.0 - tf.reduce_max(others, axis=1, keepdims=True)
    return tf.concat([before, complement if rule == "complement" else (negative + complement) / 2.0, after], axis=1)


def write_onnx(model_dir: Path, out: Path, views: int = 8) -> None:
    """Write the network of a model folder as ONNX, atomically, with what happens before and after it.

    The input ``tiles`` is (n, S, S, colours) uint8, S the size of the tiles that trained it: 0 at the background of the
    field, 255 at ``HEADROOM`` times its white. The outputs are ``probabilities``, (n, 19) float32, as in the tables of
    predictions, and ``embedding``, (n, units) float32. The metadata name locations, colours and thresholds.

    views: the dihedral views that are averaged, 1 to 8
    Raises ModelError for a folder whose files are invalid.
    """
    with precision_policy("float32"):
        model, config, decision = load_folder(model_dir)
        network = fold_batch_norm(model)
    twin = keras.Model(network.input, [network.output, network.get_layer("embedding").output])
    # A folder that says nothing of its tiles takes those of the size of the network's input.
    size = config["preprocessing"].get("tiles", {}).get("size", config["input_size"])
    resize = _resizing(size, config["input_size"])

    @tf.function(input_signature=[tf.TensorSpec((None, size, size, len(config["channels"])), tf.uint8, name="tiles")])
    def predict(tiles: Any) -> dict[str, Any]:
        images = resize(tf.cast(tiles, tf.float32))
        # All views at once, so that the network is in the file once.
        outputs = twin(tf.concat([dihedral_view(images, view) for view in range(views)], axis=0), training=False)
        means = [tf.reduce_mean(tf.reshape(each, (views, -1, each.shape[1])), axis=0) for each in outputs]
        return {"probabilities": _settled(means[0], decision["negative_rule"]), "embedding": means[1]}

    written, _ = tf2onnx.convert.from_function(predict, predict.input_signature, opset=_OPSET)
    # It sorts them by name; by position, what most people ask for comes first.
    written.graph.output.sort(key=lambda output: output.name, reverse=True)
    onnx.helper.set_model_props(
        written,
        {
            "made_by": f"hpaloc {__version__}",
            "locations": json.dumps(NAMES),
            "channels": json.dumps(list(config["channels"])),
            "tiles": json.dumps({"size": size, "headroom": HEADROOM, **config["preprocessing"]}),
            "thresholds": json.dumps(decision["thresholds"]),
            "views": str(views),
        },
    )
    onnx.checker.check_model(written)
    with atomic_path(out) as temporary:
        temporary.write_bytes(written.SerializeToString())
    log.info("%d nodes, %.0f MB", len(written.graph.node), out.stat().st_size / 1e6)
