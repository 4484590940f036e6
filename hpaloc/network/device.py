"""The device and the number format of the computation."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from hpaloc.network.options import ModelError

log = logging.getLogger("hpaloc")


# From this compute capability on, the compiler of kernels must be of this version of CUDA or newer.
_NEW_CAPABILITY, _NEW_CUDA = (10, 0), (12, 8)


class NoGpuError(RuntimeError):
    """A GPU is required and none is visible, or TensorFlow cannot use it."""


def select_device(
    gpu: str = "auto",
    threads: int | None = None,
    gpus: int = 1,
    precision: str | None = None,
    batch_size: int | None = None,
) -> tuple[tf.distribute.Strategy, str]:
    """Choose the device of this process, log it in one line, and return (strategy, name).

    Several GPUs share each batch (MirroredStrategy).

    gpu: ``auto`` (GPUs if any is visible, else the CPU), ``required`` or ``none``
    threads: the most CPU threads of TensorFlow; like ``none``, only before TensorFlow's first operation in the process
    gpus: the most GPUs that are used; with ``required``, all of them must be visible
    precision, batch_size: as in ``choose_precision``, and cells per step; for the line

    Raises NoGpuError if a required GPU is not visible or TensorFlow cannot use one, ModelError for another ``gpu``.
    """
    if gpu not in ("auto", "required", "none"):
        raise ModelError(f"gpu must be auto, required or none, got {gpu!r}")
    cards = tf.config.list_physical_devices("GPU")
    if gpu == "required" and not cards:
        raise NoGpuError(
            "gpu: required, but TensorFlow sees no GPU here. Check that the job got one (nvidia-smi), that "
            "CUDA_VISIBLE_DEVICES is not empty and that the environment has tensorflow[and-cuda]; or set gpu: auto."
        )
    if gpu == "required" and len(cards) < gpus:
        raise NoGpuError(f"train.gpus: {gpus}, but TensorFlow sees {len(cards)} here; ask for fewer, or set gpu: auto")
    used = [] if gpu == "none" else cards[:gpus]
    details = [tf.config.experimental.get_device_details(card) for card in used]
    for card, of_card in zip(used, details, strict=True):
        check_capability(of_card.get("device_name", card.name), of_card.get("compute_capability"))
    try:
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
        tf.config.set_visible_devices(used, "GPU")
        for card in used:
            # Taking memory as it is needed lets two jobs share a card.
            tf.config.experimental.set_memory_growth(card, True)
    except RuntimeError:
        log.warning("TensorFlow already runs in this process: its threads and devices stay as they are")
    names = [_describe(of_card) for of_card in details]
    name = f"{len(names)} GPU: {', '.join(names)}" if names else "CPU"
    said = [name if names else f"CPU, {f'{threads} threads' if threads else 'all cores'}"]
    said += [] if precision is None else [f"precision {choose_precision(precision)}"]
    said += [] if batch_size is None else [f"{batch_size} cells per step"]
    log.info("device: %s; TensorFlow %s", "; ".join(said), tf.__version__)
    if names and len(names) < gpus:
        log.warning("train.gpus is %d, but TensorFlow sees %d", gpus, len(names))
    return tf.distribute.MirroredStrategy() if len(names) > 1 else tf.distribute.get_strategy(), name


def _describe(details: Mapping[str, Any]) -> str:
    capability = details.get("compute_capability")
    said = f" (compute capability {'.'.join(map(str, capability))})" if capability else ""
    return f"{details.get('device_name', 'unknown')}{said}"


def check_capability(name: str, capability: tuple[int, int] | None, cuda: str | None = None) -> None:
    """Raise NoGpuError if this build of TensorFlow cannot use a GPU of this compute capability.

    capability: (major, minor); None if it is not known
    cuda: the version of CUDA that TensorFlow was built with; None to ask TensorFlow
    """
    cuda = cuda or str(tf.sysconfig.get_build_info().get("cuda_version", ""))
    version = tuple(int(part) for part in cuda.split(".")[:2] if part.isdigit())
    if capability and capability >= _NEW_CAPABILITY and version and version < _NEW_CUDA:
        raise NoGpuError(
            f"The GPU {name} has compute capability {'.'.join(map(str, capability))}, which TensorFlow "
            f"{tf.__version__}, built with CUDA {cuda}, cannot use. Take another GPU, set train.gpu: none, or use the "
            "environment envs/tensorflow-latest.yaml (docs/cluster.md)."
        )


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
