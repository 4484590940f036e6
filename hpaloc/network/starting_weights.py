"""The weights that a training starts from: those of ImageNet, of a file, or of another model folder."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from hpaloc.network.folder import check_starting_weights
from hpaloc.network.loading import load_folder
from hpaloc.network.options import ModelError

# The colours assigned to the input planes of the public ImageNet weights.
IMAGENET_CHANNELS = ("red", "green", "blue")


def adapt_first_convolution(kernel: np.ndarray, source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Convert a first kernel for the colours ``source`` into one for the colours ``target``.

    A colour of the source keeps its plane, any other starts from the mean of the source's planes. If the number of
    colours changes, all planes are scaled by len(source) / len(target), which keeps the mean response to a grey image.

    kernel: (k, k, len(source), filters) float

    Returns (k, k, len(target), filters), same dtype.
    Raises ModelError unless the kernel has one plane for each source colour.
    """
    if kernel.shape[2] != len(source):
        raise ModelError(f"the first kernel has {kernel.shape[2]} planes, not one for each of {list(source)}")
    mean = kernel.mean(axis=2)
    planes = [kernel[:, :, source.index(colour)] if colour in source else mean for colour in target]
    return np.stack(planes, axis=2) * kernel.dtype.type(len(source) / len(target))


def load_weights(model: keras.Model, channels: Sequence[str], weights: str) -> None:
    """Load ``weights`` into a classifier for ``channels``.

    With ``none`` nothing is loaded. ``imagenet`` (downloaded by Keras, which checks its digest) and .h5 files hold the
    stock ResNet-50 of Keras: its backbone is loaded, and the biases of its convolutions and the mean that its
    pre-processing subtracts go into the moving means. A .keras file is another classifier of hpaloc in its model
    folder: all layers are loaded. ``adapt_first_convolution`` converts the first kernel. Only arrays are read; nothing
    in a file is executed.

    Raises ModelError if the file is missing, of another kind, or does not fit.
    """
    if weights == "none":
        return
    if weights != "imagenet":
        check_starting_weights(weights)
    if weights == "imagenet" or str(weights).endswith(".h5"):
        try:
            source = keras.applications.ResNet50(include_top=False, weights=weights)
        except Exception as error:
            raise ModelError(
                f"config key train.weights: cannot load {weights} into Keras' ResNet50: {error}"
            ) from error
        _strip_stock(source)
        planes: Sequence[str] = IMAGENET_CHANNELS
    else:
        source, settings, _ = load_folder(Path(weights).parent, Path(weights).name)
        planes = settings["channels"]
    names = {layer.name for layer in source.layers if layer.weights}
    for layer in model.layers:
        if not layer.weights or layer.name not in names:
            continue
        arrays = source.get_layer(layer.name).get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            arrays = arrays[:1]
        if layer.name == "conv1_conv":
            arrays[0] = adapt_first_convolution(arrays[0], list(planes), list(channels))
        try:
            layer.set_weights(arrays)
        except ValueError as error:
            raise ModelError(f"config key train.weights: {weights} does not fit layer {layer.name}: {error}") from error


def _strip_stock(source: keras.Model) -> None:
    """Move the convolution biases and the input mean of a stock ResNet-50 into the moving means, in place."""
    # Keras' "caffe" pre-processing: planes in the order blue, green, red, minus these means of ImageNet.
    mean = np.array([123.68, 116.779, 103.939], np.float32)
    for layer in source.layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        kernel, bias = layer.get_weights()
        if layer.name == "conv1_conv":
            kernel = kernel[:, :, ::-1]
            bias = bias - np.einsum("hwcf,c->f", kernel, mean)
        norm = source.get_layer(layer.name.removesuffix("_conv") + "_bn")
        gamma, beta, moving_mean, moving_variance = norm.get_weights()
        norm.set_weights([gamma, beta, moving_mean - bias, moving_variance])
        layer.set_weights([kernel, np.zeros_like(bias)])
