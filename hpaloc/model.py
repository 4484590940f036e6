"""The ResNet-50 of hpaloc: any subset of the four colours, the head of the method, and its inference twin."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpaloc.classes import COLOURS, N_CLASSES, NAMES, NEGATIVE
from hpaloc.files import digest
from hpaloc.mixtures import check_reading, read_prototypes

log = logging.getLogger("hpaloc")

HEADS = ("sigmoid", "softmax")
# How the probability of Negative is made from the network's 19 outputs; see `settle_negative`.
NEGATIVE_RULES = ("complement", "network", "mean")
# The colour each input plane of the public ImageNet weights is taken for.
IMAGENET_CHANNELS = ("red", "green", "blue")
# The stride of the last block in pixels: below it the last map has no extent.
SMALLEST_INPUT = 32
# The last scale of each residual block at the start. At 0 (Goyal et al. 2017, arXiv:1706.02677, section 5.1) every
# block starts as the identity, and after a few hundred steps still nearly is: the scales were below 0.03. The demo's
# training calls more cells right from 0.2 than from 0; from 1, the stock value, it learns more slowly.
BRANCH_SCALE = 0.2


class ModelError(ValueError):
    """A model cannot be built or loaded as asked; the message names the key or the file."""


class NoGpuError(RuntimeError):
    """A GPU was asked for and none is visible."""


def select_device(gpu: str = "auto", threads: int | None = None) -> tuple[tf.distribute.Strategy, str]:
    """Choose the device for this process and return (strategy, its name for people), logging the name.

    ``gpu`` is ``auto`` (all visible GPUs, else the CPU), ``required`` (NoGpuError where none is visible) or ``none``.
    Several GPUs share each batch (MirroredStrategy). ``threads`` bounds the CPU threads of TensorFlow; it and ``none``
    have effect only before TensorFlow's first operation in the process. Another ``gpu`` raises ModelError.
    """
    if gpu not in ("auto", "required", "none"):
        raise ModelError(f"gpu must be auto, required or none, got {gpu!r}")
    cards = tf.config.list_physical_devices("GPU")
    if gpu == "required" and not cards:
        raise NoGpuError(
            "gpu: required, but TensorFlow sees no GPU here. Check that the job got one (nvidia-smi), that "
            "CUDA_VISIBLE_DEVICES is not empty and that the environment holds tensorflow[and-cuda]; or set gpu: auto."
        )
    try:
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
        if gpu == "none":
            tf.config.set_visible_devices([], "GPU")
        for card in cards if gpu != "none" else ():
            # Taking memory as it is needed lets two jobs share a card.
            tf.config.experimental.set_memory_growth(card, True)
    except RuntimeError:
        log.warning("TensorFlow runs already in this process: its threads and devices stay as they are")
    cards = tf.config.get_visible_devices("GPU")
    if not cards:
        log.info("device: CPU, %s (TensorFlow %s)", f"{threads} threads" if threads else "all cores", tf.__version__)
        return tf.distribute.get_strategy(), "CPU"
    names = [tf.config.experimental.get_device_details(card).get("device_name", card.name) for card in cards]
    log.info("device: %d GPU: %s (TensorFlow %s)", len(cards), ", ".join(names), tf.__version__)
    strategy = tf.distribute.MirroredStrategy() if len(cards) > 1 else tf.distribute.get_strategy()
    return strategy, f"{len(cards)} GPU: {', '.join(names)}"


def choose_precision(precision: str = "auto") -> str:
    """Return the Keras dtype policy for ``precision``: float32, mixed_bfloat16 or mixed_float16.

    ``auto`` takes bfloat16 where the device computes with it (CPUs with AVX512-BF16 or AMX, GPUs from compute
    capability 8), float16 on GPUs from 7 (tensor cores), else float32. Another ``precision`` raises ModelError.
    """
    if precision != "auto":
        if precision not in ("float32", "mixed_bfloat16", "mixed_float16"):
            raise ModelError(f"precision must be auto, float32, mixed_bfloat16 or mixed_float16, got {precision!r}")
        return precision
    cards = tf.config.get_visible_devices("GPU")
    if cards:
        capabilities = [tf.config.experimental.get_device_details(card)["compute_capability"] for card in cards]
        lowest = min(capabilities)
        return "mixed_bfloat16" if lowest >= (8, 0) else "mixed_float16" if lowest >= (7, 0) else "float32"
    information = Path("/proc/cpuinfo")
    flags = information.read_text() if information.is_file() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@keras.saving.register_keras_serializable(package="hpaloc")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of the last axis of a (n, h, w, c) map by TensorFlow's fused kernel.

    The results are those of `keras.layers.BatchNormalization`, whose chain of elementwise kernels costs a
    training step on a CPU about a sixth of its time and, in bfloat16, casts every map to float32 and back. The
    statistics are float32 whatever the compute type.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the batch's statistics when training, else by the moving ones."""
        learn = bool(training) and self.trainable
        empty = tf.zeros([0], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=empty if learn else tf.convert_to_tensor(self.moving_mean),
            variance=empty if learn else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=learn,
        )
        if learn:
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return outputs


@contextmanager
def precision_policy(policy: str) -> Iterator[None]:
    """Make layers under the Keras dtype policy ``policy`` and put the former policy back afterwards."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)


def check_channels(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the colours of the input planes; ModelError if one is unknown, repeated, or none is given."""
    channels = tuple(channels)
    if not channels or len(set(channels)) != len(channels) or not set(channels) <= set(COLOURS):
        raise ModelError(f"channels must be distinct colours out of {', '.join(COLOURS)}, got {list(channels)}")
    return channels


def adapt_first_convolution(kernel: np.ndarray, source: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Turn a first kernel for the colours ``source`` into one for the colours ``target``.

    ``kernel`` is (k, k, len(source), filters); the result (k, k, len(target), filters), same dtype. A colour the source
    knows keeps its plane, any other starts from the mean of the source's planes, and where the number of colours
    changes all are scaled by len(source) / len(target), which keeps the mean response to a grey image. Raises
    ModelError where the kernel has not one plane for each source colour.
    """
    if kernel.shape[2] != len(source):
        raise ModelError(f"the first kernel has {kernel.shape[2]} planes, not one for each of {list(source)}")
    mean = kernel.mean(axis=2)
    planes = [kernel[:, :, source.index(colour)] if colour in source else mean for colour in target]
    return np.stack(planes, axis=2) * kernel.dtype.type(len(source) / len(target))


def backbone(channels: int, input_size: int | None = None, momentum: float = 0.9) -> keras.Model:
    """Return an untrained ResNet-50 v1 without top: images 0..255 (n, S, S, channels) to maps (n, S/32, S/32, 2048).

    The graph and the layer names are those of `keras.applications.ResNet50`, with these changes: no bias in
    convolutions, which the batch norm behind each would cancel (that of the first also takes the scale of the
    images away); He initialisation (He et al. 2015, arXiv:1502.01852); the last scale of each residual block
    starts from `BRANCH_SCALE`; moving averages of momentum 0.9, since with the 0.99 of Keras they trail the weights by
    hundreds of steps. ``input_size`` S in pixels; None takes any size from 32 up. Raises ModelError for an
    ``input_size`` that is too small.
    """
    if input_size is not None and input_size < SMALLEST_INPUT:
        raise ModelError(f"input_size must be at least {SMALLEST_INPUT}, got {input_size}")
    shape = (input_size, input_size, channels)
    with warnings.catch_warnings():
        # Keras warns of any number of channels but 1 and 3.
        warnings.simplefilter("ignore", UserWarning)
        stock = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape, name="resnet50")

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            settings |= {"momentum": momentum}
            if layer.name.endswith("_3_bn"):
                settings["gamma_initializer"] = keras.initializers.Constant(BRANCH_SCALE)
            return FusedBatchNormalization.from_config(settings)
        if isinstance(layer, keras.layers.Conv2D):
            settings |= {"use_bias": False, "kernel_initializer": "he_normal"}
        return type(layer).from_config(settings)

    return keras.models.clone_model(stock, keras.Input(shape, name="image"), rebuild)


def classifier(
    channels: Sequence[str],
    head: str = "sigmoid",
    input_size: int | None = 224,
    weights: str = "none",
    dropout: Sequence[float] = (0.5, 0.25),
    units: int = 512,
) -> keras.Model:
    """Return the cell classifier: tiles 0..255 (n, S, S, len(channels)) to probabilities (n, 19) float32.

    Above the backbone stands the head of the method: global average pooling, batch norm, dropout, dense ``units``
    relu (the layer ``embedding``), batch norm, dropout, dense 19. The last bias starts at the odds of 1 in 19.
    ``weights`` is ``none``, ``imagenet`` (downloaded by Keras, its own digest checked) or a path to a .keras or
    .h5 file; see `load_backbone`. Raises ModelError for an unknown head, colour, weight file or size.
    """
    channels = check_channels(channels)
    if head not in HEADS:
        raise ModelError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    body = backbone(len(channels), input_size)
    average = {"momentum": 0.9, "epsilon": 1.001e-5}
    x = keras.layers.GlobalAveragePooling2D(name="pool")(body.output)
    x = keras.layers.BatchNormalization(**average, name="pool_bn")(x)
    x = keras.layers.Dropout(dropout[0], name="pool_dropout")(x)
    x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="embedding")(x)
    x = keras.layers.BatchNormalization(**average, name="embedding_bn")(x)
    x = keras.layers.Dropout(dropout[1], name="embedding_dropout")(x)
    # Starting from the odds of 1 in 19 saves a sigmoid head the steps it would spend on learning that most are no.
    bias = keras.initializers.Constant(-np.log(N_CLASSES - 1.0) if head == "sigmoid" else 0.0)
    x = keras.layers.Dense(N_CLASSES, activation=head, bias_initializer=bias, dtype="float32", name="location")(x)
    model = keras.Model(body.input, x, name="hpaloc_resnet50")
    if weights != "none":
        load_weights(model, channels, weights)
    return model


def load_weights(model: keras.Model, channels: Sequence[str], weights: str) -> list[str]:
    """Fill a classifier made for ``channels`` from ``weights`` and return the names of the layers filled.

    ``imagenet`` and .h5 files hold the stock ResNet-50 of Keras: its backbone is taken, the biases of its
    convolutions and the mean that its own pre-processing subtracts go into the moving means. A .keras file is
    another classifier of hpaloc, its config.json beside it: all layers are taken. The first kernel goes through
    `adapt_first_convolution`. Nothing in a file is executed: of a .keras file, too, only the arrays are read.
    Raises ModelError if the file is missing, of another kind, or does not fit.
    """
    if weights != "imagenet" and not Path(weights).exists():
        raise ModelError(f"train.weights: no such file: {weights}")
    if weights == "imagenet" or str(weights).endswith(".h5"):
        try:
            source = keras.applications.ResNet50(include_top=False, weights=weights)
        except Exception as error:
            raise ModelError(f"train.weights: cannot load {weights} into Keras' ResNet50: {error}") from error
        _strip_stock(source)
        planes: Sequence[str] = IMAGENET_CHANNELS
    elif str(weights).endswith(".keras"):
        source, settings, _ = load_folder(Path(weights).parent, Path(weights).name)
        planes = settings["channels"]
    else:
        raise ModelError(f"train.weights must be none, imagenet or a .keras or .h5 file, got {weights}")
    names = {layer.name for layer in source.layers if layer.weights}
    filled = []
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
            raise ModelError(f"train.weights: {weights} does not fit layer {layer.name}: {error}") from error
        filled.append(layer.name)
    return filled


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


def _read_json(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON ({error})") from None
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            raise ModelError(f"{path}: the key {key!r} is missing")
    return values


def read_settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config.json and thresholds.json of a model folder; raise ModelError naming the file and key at fault.

    A folder comes from elsewhere: what it asks for is checked before a network is built from it.
    """
    path = folder / "config.json"
    config = _read_json(path, ("channels", "head", "input_size", "units", "dropout", "classes"))
    if config["classes"] != list(NAMES):
        raise ModelError(f"{path}: its classes are not the {N_CLASSES} of hpaloc")
    if config["head"] not in HEADS:
        raise ModelError(f"{path}: head is {config['head']!r}, not one of {', '.join(HEADS)}")
    for key, least, most in (("input_size", 32, 1024), ("units", 1, 2**16)):
        if type(config[key]) is not int or not least <= config[key] <= most:
            raise ModelError(f"{path}: {key} is {config[key]!r}, not a whole number from {least} to {most}")
    channels = config["channels"]
    if not isinstance(channels, list) or not all(isinstance(colour, str) for colour in channels):
        raise ModelError(f"{path}: channels is {channels!r}, no list of colours")
    try:
        check_channels(channels)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    rates = config["dropout"]
    if not isinstance(rates, list) or len(rates) != 2 or not all(type(rate) in (int, float) for rate in rates):
        raise ModelError(f"{path}: dropout is {rates!r}, not two numbers")
    if not all(0 <= rate < 1 for rate in rates):
        raise ModelError(f"{path}: dropout is {rates!r}, not two rates from 0 to below 1")
    path = folder / "thresholds.json"
    decision = _read_json(path, ("thresholds", "negative_rule"))
    if decision["negative_rule"] not in NEGATIVE_RULES:
        raise ModelError(
            f"{path}: negative_rule is {decision['negative_rule']!r}, not one of {', '.join(NEGATIVE_RULES)}"
        )
    thresholds = {} if decision["thresholds"] is None else decision["thresholds"]
    if not isinstance(thresholds, dict):
        raise ModelError(f"{path}: thresholds is {thresholds!r}, no table of locations")
    for name, value in thresholds.items():
        if name not in NAMES or type(value) not in (int, float):
            raise ModelError(f"{path}: the threshold of {name!r} is {value!r}, no number of a known location")
    if "mixtures" in decision:
        try:
            check_reading(decision["mixtures"])
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
        if not {"green", "blue"} <= set(channels):
            raise ModelError(
                f"{path}: mixtures are read from green and blue, and the network sees {', '.join(channels)}"
            )
    try:
        read_prototypes(path)
    except ValueError as error:
        raise ModelError(str(error)) from None
    return config, decision


def load_folder(folder: Path, name: str = "model.keras") -> tuple[keras.Model, dict[str, Any], dict[str, Any]]:
    """Return (classifier, config, thresholds) of a model folder whose files agree with its checksums.json.

    The network is built from config.json by `classifier` and only the arrays of ``name`` are read, so that no code
    and no class name out of the file is ever run. Raises ModelError naming a file that is missing or was changed,
    or a folder written for another list of classes.
    """
    folder = Path(folder)
    check_folder(folder)
    config, thresholds = read_settings(folder)
    model = classifier(
        config["channels"], config["head"], config["input_size"], dropout=config["dropout"], units=config["units"]
    )
    try:
        model.load_weights(str(folder / name))
    except Exception as error:
        # Keras goes on to print the arrays.
        reason = str(error).split(" Example error", 1)[0].split("\n", 1)[0]
        raise ModelError(f"{folder / name} does not hold the network that config.json describes: {reason}") from error
    return model, config, thresholds


def write_checksums(folder: Path, names: Sequence[str]) -> None:
    """Write checksums.json, the SHA-256 digest of each named file of a model folder."""
    sums = {name: digest(folder / name) for name in names}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")


def check_folder(folder: Path) -> None:
    """Raise ModelError unless every file that checksums.json lists is there and has the digest it had."""
    path = Path(folder) / "checksums.json"
    if not path.is_file():
        raise ModelError(f"{folder} is no model folder: it has no checksums.json")
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        sums = None
    if not isinstance(sums, dict) or not all(isinstance(expected, str) for expected in sums.values()):
        raise ModelError(f"{path} is no table of digests")
    for name in sums:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ModelError(f"{path} names {name}, which is no file of the folder")
    for name in ("model.keras", "config.json", "thresholds.json"):
        if name not in sums:
            raise ModelError(f"{path} does not list {name}")
    for name, expected in sums.items():
        if not (Path(folder) / name).is_file():
            raise ModelError(f"{Path(folder) / name} is missing")
        if digest(Path(folder) / name) != expected:
            raise ModelError(f"{Path(folder) / name} was changed after the model folder was written (checksums.json)")


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Return the inference twin of a classifier: each batch norm of a map folded into the convolution before it.

    Same inputs, outputs and names of the layers that stay; weights are copies. A convolution then ends in a
    bias, which TensorFlow fuses with it, its activation and the residual sum into one kernel.
    """

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            settings["use_bias"] = True
        return type(layer).from_config(settings)

    def skip(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if isinstance(layer, FusedBatchNormalization) else layer(*args, **kwargs)

    twin = keras.models.clone_model(model, clone_function=rebuild, call_function=skip)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            norm = model.get_layer(layer.name.removesuffix("_conv") + "_bn")
            gamma, beta, mean, variance = (np.float64(array) for array in norm.get_weights())
            scale = gamma / np.sqrt(variance + norm.epsilon)
            twin.get_layer(layer.name).set_weights([layer.get_weights()[0] * scale, beta - mean * scale])
        elif layer.weights and not isinstance(layer, FusedBatchNormalization):
            twin.get_layer(layer.name).set_weights(layer.get_weights())
    return twin


def settle_negative(probabilities: np.ndarray, rule: str) -> np.ndarray:
    """Return (n, 19) probabilities whose Negative column follows ``rule``; a copy, same dtype.

    ``complement``: the smallest of 1 - p over the other classes (docs/model.md, "Prediction"); ``network``: the output
    for Negative as it is; ``mean``: the mean of both. Raises ModelError for another rule.
    """
    if rule not in NEGATIVE_RULES:
        raise ModelError(f"the rule for Negative must be one of {', '.join(NEGATIVE_RULES)}, got {rule!r}")
    settled = np.array(probabilities)
    complement = 1 - np.delete(settled, NEGATIVE, axis=1).max(axis=1)
    if rule == "complement":
        settled[:, NEGATIVE] = complement
    elif rule == "mean":
        settled[:, NEGATIVE] = (settled[:, NEGATIVE] + complement) / 2
    return settled


def label_sets(probabilities: np.ndarray, thresholds: np.ndarray | None) -> list[tuple[int, ...]]:
    """Return the label set of each cell from (n, 19) float probabilities.

    With (19,) float thresholds: the locations that reach theirs, and Negative alone where none does. Without (softmax:
    one location a cell): the likeliest class.
    """
    if thresholds is None:
        return [(int(best),) for best in probabilities.argmax(axis=1)]
    passed = probabilities >= thresholds
    passed[:, NEGATIVE] = ~np.delete(passed, NEGATIVE, axis=1).any(axis=1)
    return [tuple(np.flatnonzero(row).tolist()) for row in passed]


def decision_thresholds(decision: Mapping[str, Any]) -> np.ndarray | None:
    """Return the (19,) float32 thresholds of a thresholds.json, or None where the likeliest class is taken."""
    if decision["thresholds"] is None:
        return None
    # Negative has none: it is what a cell is when no location reaches its threshold.
    return np.array([decision["thresholds"].get(name, np.inf) for name in NAMES], np.float32)


def dihedral_view(images: Any, view: int) -> Any:
    """Return turn or mirroring number ``view`` (0 to 7) of a square batch (n, S, S, c).

    0 is the batch itself, 1 to 3 its quarter turns, 4 to 7 those of its mirror image.
    """
    return tf.image.rot90(images if view < 4 else tf.reverse(images, [2]), view % 4)


def averaged(model: keras.Model, views: int, fold: bool = True) -> Any:
    """Return a function: images 0..255 (n, S, S, c) to (probabilities (n, 19), embeddings (n, d)), float32.

    Both are means over the first ``views`` dihedral views. ``fold`` runs the folded twin of the model, which is faster
    and agrees up to rounding. Raises ModelError for a number of views that is not 1 to 8.
    """
    if not 1 <= views <= 8:
        raise ModelError(f"predict.views must be 1 to 8, got {views}")
    network = fold_batch_norm(model) if fold else model
    twin = keras.Model(network.input, [network.output, network.get_layer("embedding").output])

    # Compiled for one view, since a graph of eight takes eight times as long to build and runs no faster.
    @tf.function(reduce_retracing=True)
    def forward(images: Any) -> tuple[Any, Any]:
        probabilities, embeddings = twin(tf.cast(images, twin.input.dtype), training=False)
        return tf.cast(probabilities, tf.float32), tf.cast(embeddings, tf.float32)

    def mean_of_views(images: Any) -> tuple[Any, Any]:
        images = tf.cast(images, tf.float32)
        outputs = [forward(dihedral_view(images, view)) for view in range(views)]
        return tuple(tf.add_n(output) / views for output in zip(*outputs, strict=True))

    return mean_of_views


class FullyConvolutionalResNet50(keras.Model):
    """The fully convolutional twin of a classifier: it shares its weights and takes images of any size.

    Called on (n, H, W, colours) 0..255 with H and W not below the classifier's tiles it gives (n, h, w, 19) float32
    probabilities: those of the classifier at each step of 32 px. Global average pooling becomes an average pooling
    of the size of the classifier's last map (7 × 7 at 224 px), the dense layers 1 × 1 convolutions with the same
    variables (docs/model.md, "The fully convolutional twin"). A later change of the classifier's weights shows here.
    """

    STEP = 32

    def __init__(self, model: keras.Model, **settings: Any) -> None:
        settings.setdefault("name", "fully_convolutional_resnet50")
        super().__init__(**settings)
        maps = model.get_layer("pool").input
        self.tile_size: int = model.input_shape[1]
        self.window: int = maps.shape[1]
        self.colours: int = model.input_shape[3]
        # Run once more over an input of open size, the very same layers make a second graph.
        self.body = keras.models.clone_model(
            keras.Model(model.input, maps), keras.Input((None, None, self.colours)), clone_function=lambda layer: layer
        )
        self.head = [model.get_layer(name) for name in ("pool_bn", "embedding", "embedding_bn", "location")]

    def _locate(self, maps: Any) -> Any:
        first, embedding, second, location = self.head
        for norm, dense in ((first, embedding), (second, location)):
            scale = norm.gamma / tf.sqrt(norm.moving_variance + norm.epsilon)
            maps = (maps - norm.moving_mean) * scale + norm.beta
            maps = tf.nn.conv2d(maps, tf.convert_to_tensor(dense.kernel)[None, None], 1, "VALID") + dense.bias
            maps = dense.activation(maps)
        return maps

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Return the probabilities of every position at which a whole tile lies in the image."""
        maps = tf.cast(self.body(images, training=False), tf.float32)
        return self._locate(tf.nn.avg_pool2d(maps, self.window, 1, "VALID"))

    def class_activation_maps(self, image: np.ndarray, window: int = 1) -> np.ndarray:
        """Return (H, W, 19) float32: the probability of each class around each pixel of one image (H, W, colours).

        ``window`` is the side in steps of 32 px over which features are averaged: 1 gives the finest map, the
        classifier's own (``self.window``) the smoothest. Between the steps the maps are bilinear. Raises ModelError
        for an image that is smaller than a tile or has other colours.
        """
        height, width = image.shape[:2]
        if image.ndim != 3 or image.shape[2] != self.colours or min(height, width) < self.tile_size:
            raise ModelError(
                f"an image of {self.colours} colours and at least {self.tile_size} px a side is needed, "
                f"got one of shape {image.shape}"
            )
        maps = tf.cast(self.body(tf.convert_to_tensor(image)[None], training=False), tf.float32)
        # Padding is left out of the average, so a map keeps its size and its borders their level.
        maps = self._locate(tf.nn.avg_pool2d(maps, window, 1, "SAME"))
        covered = [self.STEP * steps for steps in maps.shape[1:3]]
        return tf.image.resize(maps, covered)[0, :height, :width].numpy()


def theoretical_receptive_field(model: keras.Model, pooled: bool = False) -> int:
    """Return the side in pixels of the input that can reach one position of the last map of a ResNet-50.

    From the kernels k and strides s on the longest path: r = 1 + Σ (k - 1)·j, j the product of the strides before.
    ``pooled`` adds the average pooling above. 483 and, at 224 px, 675.
    """
    field, jump = 1, 1
    for layer in model.layers:
        if isinstance(layer, keras.layers.MaxPooling2D):
            kernel, stride = layer.pool_size[0], layer.strides[0]
        elif isinstance(layer, keras.layers.Conv2D) and not layer.name.endswith("_0_conv"):
            kernel, stride = layer.kernel_size[0], layer.strides[0]
        else:
            continue
        field += (kernel - 1) * jump
        jump *= stride
    if pooled:
        field += (model.get_layer("pool").input.shape[1] - 1) * jump
    return field


def propagated_receptive_field(model: keras.Model, side: int = 1024) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the gradient of the middle of the last map on the input, and the box (y0, x0, y1, x1) where it is not 0.

    The twin (docs/model.md) with constant positive weights, no batch norm, average for max
    pooling; one filter in each convolution, since filters alike give the same map. The gradient is (side, side)
    float64 of sum 1, the box in pixels, its ends exclusive.
    """
    body = keras.Model(model.input, model.get_layer("pool").input)

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config() | {"dtype": "float64"}
        if isinstance(layer, keras.layers.MaxPooling2D):
            names = ("name", "dtype", "pool_size", "strides", "padding", "data_format")
            return keras.layers.AveragePooling2D(**{name: settings[name] for name in names})
        if isinstance(layer, keras.layers.Conv2D):
            weight = 1 / np.prod(layer.kernel_size)
            settings |= {"filters": 1, "kernel_initializer": keras.initializers.Constant(weight), "use_bias": False}
        return type(layer).from_config(settings)

    def skip(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if isinstance(layer, keras.layers.BatchNormalization) else layer(*args, **kwargs)

    image = keras.Input((side, side, 1), dtype="float64")
    twin = keras.models.clone_model(body, image, clone_function=rebuild, call_function=skip)
    gradient = _middle_gradient(twin, tf.ones((1, side, side, 1), tf.float64))[0, ..., 0]
    rows, columns = np.flatnonzero(gradient.any(axis=1)), np.flatnonzero(gradient.any(axis=0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return gradient / gradient.sum(), box


def _middle_gradient(network: keras.Model, images: Any) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps = network(images, training=False)
        middle = tf.reduce_sum(maps[:, maps.shape[1] // 2, maps.shape[2] // 2])
    return tape.gradient(middle, images).numpy()


def effective_receptive_field(model: keras.Model, images: np.ndarray) -> dict[str, Any]:
    """Return where in the input the middle of a classifier's last map draws from, on real images 0..255.

    The squared gradient of the sum of all filters, added over images and colours (Luo et al. 2016, arXiv:1701.04128).
    ``images`` is (n, H, W, colours) float32, of any size from the classifier's on. The result holds ``mass`` (H, W),
    sum 1, and ``radius_50`` and ``radius_95``, the radii in pixels around the centre of mass that hold 50 % and 95 %.
    Raises ModelError where no gradient reaches the images.
    """
    body = FullyConvolutionalResNet50(model).body
    mass = np.zeros(images.shape[1:3])
    for image in images:
        mass += np.square(_middle_gradient(body, tf.constant(image[None], tf.float32)), dtype=float).sum(axis=(0, 3))
    if not mass.any():
        raise ModelError("no gradient reaches these images; take some with cells on them")
    mass /= mass.sum()
    y, x = np.indices(mass.shape)
    distance = np.hypot(y - (mass * y).sum(), x - (mass * x).sum()).ravel()
    order = distance.argsort()
    held = mass.ravel()[order].cumsum()
    radius = {f"radius_{share}": float(distance[order][np.searchsorted(held, share / 100)]) for share in (50, 95)}
    return {"mass": mass, **radius}


def receptive_fields(model: keras.Model, tiles: np.ndarray, montages: int = 8) -> dict[str, np.ndarray]:
    """Measure the receptive field of the middle of a classifier's last map in three ways, for a figure.

    ``tiles`` (n, S, S, colours) float32, 0..255, of the classifier's size are laid side by side, at random, into
    ``montages`` images wide enough to hold the whole field. Returns ``tile`` (side S), ``theoretical`` (side),
    ``propagated`` (gradient of sum 1) with ``box`` (y0, x0, y1, x1), and ``effective`` (squared gradient of sum 1) with
    ``radius_50`` and ``radius_95``, all in px; both maps have the montage's side. Raises ModelError without a tile.
    """
    if not len(tiles):
        raise ModelError("no tile to measure the receptive field on")
    theoretical = theoretical_receptive_field(model)
    across = -(-theoretical // model.input_shape[1]) + 1
    chosen = np.random.default_rng(0).integers(0, len(tiles), (montages, across, across))
    images = np.stack([np.concatenate([np.concatenate(tiles[row], axis=1) for row in grid]) for grid in chosen])
    propagated, box = propagated_receptive_field(model, images.shape[1])
    effective = effective_receptive_field(model, images)
    return {
        "tile": np.array(model.input_shape[1]),
        "theoretical": np.array(theoretical),
        "propagated": propagated.astype(np.float32),
        "box": np.array(box),
        "effective": effective["mass"].astype(np.float32),
        **{name: np.array(effective[name]) for name in ("radius_50", "radius_95")},
    }
