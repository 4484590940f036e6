"""The device and the number format of the computation."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from hpaloc.network.options import ModelError

log = logging.getLogger("hpaloc")


class NoGpuError(RuntimeError):
    """A GPU is required and none is visible."""


def select_device(gpu: str = "auto", threads: int | None = None) -> tuple[tf.distribute.Strategy, str]:
    """Choose the device of this process, log its name, and return (strategy, name).

    Several GPUs share each batch (MirroredStrategy).

    gpu: ``auto`` (all visible GPUs, else the CPU), ``required`` or ``none``
    threads: the most CPU threads of TensorFlow; like ``none``, only before TensorFlow's first operation in the process

    Raises NoGpuError if a required GPU is not visible, ModelError for another ``gpu``.
    """
    if gpu not in ("auto", "required", "none"):
        raise ModelError(f"gpu must be auto, required or none, got {gpu!r}")
    cards = tf.config.list_physical_devices("GPU")
    if gpu == "required" and not cards:
        raise NoGpuError(
            "gpu: required, but TensorFlow sees no GPU here. Check that the job got one (nvidia-smi), that "
            "CUDA_VISIBLE_DEVICES is not empty and that the environment has tensorflow[and-cuda]; or set gpu: auto."
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
        log.warning("TensorFlow already runs in this process: its threads and devices stay as they are")
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

    ``auto`` is bfloat16 if the device computes with it (CPUs with AVX512-BF16 or AMX, GPUs from compute capability 8),
    float16 on GPUs from 7 (tensor cores), else float32. Raises ModelError for another ``precision``.
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


@contextmanager
def precision_policy(policy: str) -> Iterator[None]:
    """Set the Keras dtype policy for the layers made in the block, and restore the former policy afterwards."""
    former = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(former)
