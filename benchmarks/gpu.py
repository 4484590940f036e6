"""Measure training and inference on a GPU: images/s, as a share of what the card can do, beside PyTorch and the input.

usage: python benchmarks/gpu.py [--minutes 5] [--batch 256 128 32 512] [--precision bfloat16 float32]

The network is the ResNet-50 with the head of hpaloc: 19 sigmoid outputs, tiles of 224 px in three colours, uint8 where
they enter, scaled on the device. Each contender runs in a process of its own, one after another, so that none shares
the card with another:

- hpaloc, TensorFlow: `hpaloc.network.resnet.classifier` with hpaloc's optimiser; inference as `predict` has it. On a
  GPU training is measured with XLA too, and the faster counts, as with `train.xla: auto`.
- Keras on JAX, if TensorFlow is not installed or --contender jax asks for it: `keras.applications.ResNet50` with the
  same head. It is not hpaloc's network, which needs TensorFlow's fused batch norm.
- PyTorch, compiled: the same graph and head, channels last, by torch.compile.

A training step is forward, binary cross-entropy, backward and Adam, on a batch that lies on the device. It has no
augmentation and no scores: the rate of a whole training is `images_per_second` in its history.csv. The input pipeline
is timed alone, on all cores: raw tiles of 256 px, read and decoded in every pass, from files that were just written;
and decoded tiles that a training keeps in memory.

The share of the peak counts 3.86 billion multiply-adds for an image of 224 px, 7.7 GFLOP: ResNet-50 with the stride in
the first convolution of a block (He et al. 2015, arXiv:1512.03385, table 1: 3.8 billion). The 4.1 billion that are
often quoted are of the variant with the stride in the second. A training step counts three times as much, since the
backward pass has the gradients of inputs and of weights. The share is the model FLOPs utilization of Chowdhery et al.
2022 (arXiv:2204.02311, appendix B). The peak is what NVIDIA's data sheets give without sparsity. In float32,
convolutions and matrix products are TF32 on cards that have it: TensorFlow and JAX use it by default, and PyTorch is
told to. A part of a card (MIG) and a virtual card have no peak here.

Batches and precisions are measured in the order in which they are named. What does not fit into the minutes is left
out, and its row says so. Nothing is downloaded. For Keras on JAX, pip install keras "jax[cuda12]" is enough.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS, COLOURS = 19, ("red", "green", "blue")
# The tiles that are read, and how often a pass reads each: a short pass would measure how long a pass takes to start.
TILES, LINKS = 128, 8
ROUNDS = 3
GMACS, GMACS_SIZE = 3.86, 224
NAMES = {
    "tensorflow": "hpaloc, TensorFlow",
    "jax": "Keras on JAX",
    "torch": "PyTorch, compiled",
}
COLUMNS = ("contender", "precision", "batch", "training, images/s", "of the peak", "inference, images/s", "of the peak")
COLUMNS += ("remark",)
CONTENDERS = ("tensorflow", "jax", "torch", "input")
READERS = ("raw tiles", "decoded tiles from memory, shuffled")
NO_TIME = "left out: no time"
# Dense TFLOPS of NVIDIA's data sheets in float32 (TF32 from Ampere on) and bfloat16 (None before Ampere). The first row
# whose words are all in the name of the card counts.
PEAKS: tuple[tuple[str, float, float | None], ...] = (
    ("H200 NVL", 417.5, 835),
    ("H200", 494.5, 989),
    ("H100 NVL", 417.5, 835),
    ("H100 PCIe", 378, 756),
    ("H100", 494.5, 989),
    ("A100", 156, 312),
    ("A40", 74.8, 149.7),
    ("A10", 62.5, 125),
    ("L40S", 183, 362),
    ("L4", 60, 121),
    ("RTX 4090", 82.6, 165.2),
    ("RTX 3090", 35.6, 71),
    ("V100 PCIE", 14, None),
    ("V100 SXM2", 15.7, None),
    ("T4", 8.1, None),
)
# Words in the names of parts of a card, of virtual ones, and of smaller cards of the same name.
OTHER_CARDS = re.compile(r"\b(MIG|GRID|\d+[ABCQ]|Laptop|D|Ti)\b")

# Makes the step of a kind for a number of images.
Prepare = Callable[[str, int], Callable[[], Any]]


def peak_of(card: str | None, precision: str) -> float | None:
    """Return the published dense peak of a card in FLOP/s, or None if it is not known."""
    words = set(re.findall(r"\w+", card or ""))
    if OTHER_CARDS.search(card or ""):
        return None
    for name, float32, bfloat16 in PEAKS:
        if set(name.split()) <= words:
            peak = float32 if precision == "float32" else bfloat16
            return None if peak is None else peak * 1e12
    return None


def flop_of(kind: str, size: int) -> float:
    """Return the FLOP of one image of ``size`` px; a multiply-add is two."""
    forward = 2e9 * GMACS * (size / GMACS_SIZE) ** 2
    return forward if kind == "inference" else 3 * forward


def first_card() -> tuple[str, str, str] | None:
    """Return name, compute capability and driver of the first GPU that this process may use, or None.

    A part of a card has MIG in its name.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = None if visible is None else visible.split(",")[0].strip()
    if first in ("", "-1"):
        return None
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version,mig.mode.current", "--format=csv,noheader"]
    # nvidia-smi does not take the name of a part; that it is one, mig.mode.current says.
    command += [f"--id={first}"] if first and not first.startswith("MIG-") else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return card_of(done.stdout)


def card_of(listed: str) -> tuple[str, str, str] | None:
    """Return name, compute capability and driver from the first line of what nvidia-smi lists, or None."""
    parts = [part.strip() for part in listed.strip().partition("\n")[0].split(",")]
    if len(parts) != 4:
        return None
    name, capability, driver, mig = parts
    return f"{name} (MIG)" if mig == "Enabled" else name, capability, driver


def installed(*names: str) -> str | None:
    """Return the version of the first of these packages that is installed, or None."""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def first_line(device: str, card: tuple[str, str, str] | None) -> str:
    """Return machine, device, compute capability and versions in one line."""
    information = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.+)", information.read_text()) if information.is_file() else []
    machine = f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}"
    if device == "cpu":
        said = "the CPU, no GPU"
    elif card is None:
        said = "a GPU that nvidia-smi does not name"
    else:
        said = f"{card[0]}, compute capability {card[1]}, driver {card[2]}"
    versions = {
        "TensorFlow": installed("tensorflow", "tensorflow-cpu"),
        "Keras": installed("keras"),
        "JAX": installed("jax"),
        "PyTorch": installed("torch"),
    }
    packages = ", ".join(f"{name} {version}" if version else f"no {name}" for name, version in versions.items())
    return f"machine: {machine}; device: {said}; Python {platform.python_version()}, {packages}"


# What follows until `serve` runs in the process of a contender.


def random_batch(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, size, size, 3) uint8 and labels (count, 19) float32."""
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, len(COLOURS)), np.uint8)
    return images, np.eye(OUTPUTS, dtype=np.float32)[np.arange(count) % OUTPUTS]


def tensorflow_network(size: int, precision: str, device: str) -> tuple[Prepare, Callable[[Any], np.ndarray]]:
    """Return how hpaloc's steps are made, and how their values come to the host."""
    import tensorflow as tf

    from hpaloc.network.device import precision_policy, select_device
    from hpaloc.network.inference import averaged
    from hpaloc.network.resnet import classifier
    from hpaloc.training.optimiser import FusedAdam

    select_device("required" if device == "gpu" else "none")
    with precision_policy("mixed_bfloat16" if precision == "bfloat16" else "float32"):
        network = classifier(COLOURS, "sigmoid", size)
        forward = averaged(network, 1)
    network.compile(FusedAdam(), "binary_crossentropy")
    network.optimizer.build(network.trainable_variables)
    # One graph for batches of any size; XLA compiles each.
    batches = [tf.TensorSpec((None, size, size, 3), tf.uint8), tf.TensorSpec((None, OUTPUTS), tf.float32)]

    def train(images: Any, labels: Any) -> Any:
        return network.train_step((images, labels))["loss"]

    steps = {
        "training": tf.function(train, input_signature=batches),
        "training with XLA": tf.function(train, input_signature=batches, jit_compile=True),
    }

    def prepare(kind: str, count: int) -> Callable[[], Any]:
        on_device = [tf.constant(array) for array in random_batch(count, size)]
        return (lambda: forward(on_device[0])[0]) if kind == "inference" else (lambda: steps[kind](*on_device))

    return prepare, np.asarray


def jax_network(size: int, precision: str, device: str) -> tuple[Prepare, Callable[[Any], np.ndarray]]:
    """Return how the steps of Keras on JAX are made, and how their values come to the host."""
    import jax
    import keras

    if device == "gpu" and jax.default_backend() != "gpu":
        raise RuntimeError("JAX sees no GPU here")
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    inputs = keras.Input((size, size, 3), dtype="uint8")
    body = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    x = body(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(512, activation="relu")(x))
    outputs = keras.layers.Dense(OUTPUTS, activation="sigmoid", dtype="float32")(keras.layers.Dropout(0.25)(x))
    network = keras.Model(inputs, outputs)
    optimiser, loss = keras.optimizers.Adam(), keras.losses.BinaryCrossentropy()
    optimiser.build(network.trainable_variables)
    groups = network.trainable_variables, network.non_trainable_variables, optimiser.variables
    state = [[variable.value for variable in group] for group in groups]

    def loss_of(trained: Any, other: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        found, other = network.stateless_call(trained, other, images, training=True)
        return loss(labels, found), other

    def train(trained: Any, other: Any, moments: Any, images: Any, labels: Any) -> tuple[Any, Any]:
        (value, other), slopes = jax.value_and_grad(loss_of, has_aux=True)(trained, other, images, labels)
        trained, moments = optimiser.stateless_apply(moments, slopes, trained)
        return value, [trained, other, moments]

    # The new weights take the memory of the old.
    train = jax.jit(train, donate_argnums=(0, 1, 2))
    infer = jax.jit(lambda trained, other, images: network.stateless_call(trained, other, images, training=False)[0])

    def prepare(kind: str, count: int) -> Callable[[], Any]:
        on_device = jax.device_put(random_batch(count, size))

        def step() -> Any:
            if kind == "inference":
                return infer(*state[:2], on_device[0])
            value, state[:] = train(*state, *on_device)
            return value

        return step

    return prepare, np.asarray


def torch_network(size: int, precision: str, device: str) -> tuple[Prepare, Callable[[Any], np.ndarray]]:
    """Return how PyTorch's steps are made, and how their values come to the host."""
    import torch
    from torch import nn
    from training import torch_body, torch_training_step

    if device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch sees no GPU here")
    place = "cuda" if device == "gpu" else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    head = [nn.BatchNorm1d(2048), nn.Dropout(0.5), nn.Linear(2048, 512), nn.ReLU(), nn.BatchNorm1d(512)]
    network = nn.Sequential(torch_body(), *head, nn.Dropout(0.25), nn.Linear(512, OUTPUTS))
    network = network.to(place, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    loss = nn.BCEWithLogitsLoss()
    autocast = torch.autocast(place, dtype=torch.bfloat16, enabled=precision == "bfloat16")

    def forward(images: Any) -> Any:
        # A view of (n, S, S, 3), which is the order in memory of channels last.
        return network(images.permute(0, 3, 1, 2).float() / 255)

    def prepare(kind: str, count: int) -> Callable[[], Any]:
        # Without this, PyTorch stops compiling after some batch sizes, and says so only in its log.
        torch.compiler.reset()
        compiled = torch.compile(forward, dynamic=False)
        pixels, targets = (torch.from_numpy(array).to(place) for array in random_batch(count, size))

        def infer() -> Any:
            with torch.inference_mode(), autocast:
                return torch.sigmoid(compiled(pixels))

        def train() -> Any:
            return torch_training_step(compiled, pixels, targets, optimiser, loss, autocast)

        network.train(kind != "inference")
        return infer if kind == "inference" else train

    return prepare, lambda value: value.float().cpu().numpy()


def pipeline(size: int, precision: str, device: str) -> tuple[Prepare, Callable[[Any], np.ndarray]]:
    """Return how batches of hpaloc's input pipeline are read, with tiles written to the current folder."""
    import tensorflow as tf
    from input import write_repeated

    from hpaloc.records import training_dataset
    from hpaloc.training.cache import kept_examples

    # The card is not for reading.
    tf.config.set_visible_devices([], "GPU")
    folder = Path.cwd() / "tiles"
    examples = training_dataset(folder / "train", write_repeated(folder, TILES, LINKS), COLOURS, size)
    # In memory, so nothing is to be deleted at the end of the process.
    [from_memory], _ = contextlib.ExitStack().enter_context(
        kept_examples([examples], [TILES * LINKS], size * size * len(COLOURS), 1e6, None, "")
    )

    def prepare(kind: str, count: int) -> Callable[[], Any]:
        data = examples
        if kind != READERS[0]:
            for _ in from_memory():
                pass
            data = from_memory(1)
        batches = iter(data.repeat().batch(TILES))
        # A whole pass, since TensorFlow reads some batches ahead.
        return lambda: [next(batches) for _ in range(count // TILES)][-1][1]

    return prepare, np.asarray


MAKERS = {"tensorflow": tensorflow_network, "jax": jax_network, "torch": torch_network, "input": pipeline}


def images_per_second(step: Callable[[], Any], fetch: Callable[[Any], np.ndarray], batch: int, steps: int) -> float:
    """Return the rate of the best of some rounds of ``steps`` steps."""
    # The first steps compile, and choose kernels.
    values = [fetch(step()) for _ in range(2)]
    best = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(steps):
            value = step()
        # A device works through what it was given; its last value is the end of the round.
        values.append(fetch(value))
        best = max(best, batch * steps / (time.perf_counter() - start))
    if not all(np.isfinite(value).all() for value in values):
        raise FloatingPointError("its values are not finite")
    return best


def reason_of(error: BaseException) -> str:
    """Return why something was not measured, in words that fit into a table."""
    said = str(error)
    if isinstance(error, MemoryError) or re.search(r"RESOURCE_EXHAUSTED|out of memory|OOM when", said):
        return "out of memory"
    if type(error).__name__ == "ResourceExhaustedError":
        return "out of memory"
    # TensorFlow's first line may say no more than where the error happened.
    lines = [line for line in said.splitlines() if line.strip() and "execution error" not in line] or [""]
    return f"{type(error).__name__}: {lines[0]}".replace("|", "/")[:200]


def serve(contender: str, size: int, steps: int, device: str) -> None:
    """Answer each line on stdin, which names kind, precision and batch, by the rate or why there is none."""
    # What the libraries print goes elsewhere.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(ROOT))
    made: dict[str, Any] = {}
    for line in sys.stdin:
        case = json.loads(line)
        step = None
        try:
            precision = case["precision"]
            if precision not in made:
                made[precision] = MAKERS[contender](size, precision, device)
            prepare, fetch = made[precision]
            step = prepare(case["kind"], case["batch"])
            answer = {"rate": images_per_second(step, fetch, case["batch"], steps)}
        except Exception as error:
            answer = {"why": reason_of(error)}
            # A step that failed may have given away the memory of the weights.
            made.clear()
            prepare = step = None
        print(json.dumps(answer), file=answers, flush=True)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a group, and the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Contender:
    """The process of a contender, which is started when it is asked something and ended at its deadline.

    command: the process that answers, a line for a line
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.command, self.environment, self.folder = command, environment, folder
        self.process: subprocess.Popen[str] | None = None

    def ask(self, case: Mapping[str, Any], deadline: float) -> float | str:
        """Return the rate of a case, or the reason why there is none; deadline: of ``time.monotonic``."""
        left = deadline - time.monotonic()
        if left <= 0:
            return NO_TIME
        errors = self.folder / "stderr"
        if self.process is None:
            with open(errors, "w") as file:
                # A group of its own, because the compiler of PyTorch starts more.
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                    env=dict(self.environment),
                    cwd=self.folder,
                    start_new_session=True,
                )
        timer = threading.Timer(left, kill, [self.process])
        timer.start()
        try:
            assert self.process.stdin
            assert self.process.stdout
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps(case), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            answer = json.loads(line)
            return answer["rate"] if "rate" in answer else answer["why"]
        code = self._end()
        if time.monotonic() >= deadline:
            return NO_TIME
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        last = errors.read_text(errors="replace").strip().splitlines()[-1:]
        return f"the process ended with {how}{''.join(f': {text}' for text in last)}".replace("|", "/")[:200]

    def close(self) -> None:
        """End the process, and what it started."""
        if self.process is not None:
            kill(self.process)
            self._end()

    def _end(self) -> int:
        """Wait for the end of the process, and return its exit status."""
        assert self.process
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            # What it did not read any more is lost.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process = None
        return code


def row_of(name: str, precision: str, batch: int, size: int, found: Mapping[str, float | str], card: str | None) -> str:
    """Return one row of the table.

    found: images/s, or the reason why there is no figure, by kind
    """
    trained = {kind: value for kind, value in found.items() if kind != "inference"}
    rates = {kind: value for kind, value in trained.items() if not isinstance(value, str)}
    best = max(rates, key=rates.__getitem__) if rates else next(iter(trained))
    cells = [name, precision, str(batch)]
    peak = peak_of(card, precision)
    for kind in (best, "inference"):
        value = found[kind]
        if isinstance(value, str):
            cells += ["-", "-"]
        else:
            share = "-" if peak is None else f"{100 * value * flop_of(kind, size) / peak:.0f} %"
            cells += [f"{value:,.1f}" if value < 100 else f"{value:,.0f}", share]
    remarks = []
    reasons = {kind: value for kind, value in found.items() if isinstance(value, str)}
    if len(reasons) == len(found) and len(set(reasons.values())) == 1:
        remarks.append(next(iter(reasons.values())))
    else:
        remarks += [f"{kind}: {value}" for kind, value in reasons.items()]
    if "training with XLA" in found and rates:
        other = {"training": "training with XLA", "training with XLA": "training"}[best]
        said = f", {rates[other]:,.0f} {'with' if best == 'training' else 'without'}" if other in rates else ""
        remarks.insert(0, f"XLA {'off' if best == 'training' else 'on'}{said}")
    return f"| {' | '.join([*cells, '; '.join(remarks)])} |"


def measure(options: argparse.Namespace, device: str, card: str | None, end: float) -> bool:
    """Print the table, and the input below it; return whether anything was measured.

    end: of ``time.monotonic``
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    # The input first, since it is short.
    order = sorted(options.contender, key=lambda name: name != "input")
    reading: dict[str, float | str] = {}
    trained, left_out, any_rate = 0.0, 0, False
    if set(order) != {"input"}:
        print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(order):
            # Those that still wait share the time that is left.
            deadline = time.monotonic() + (end - time.monotonic()) / (len(order) - number)
            command = [sys.executable, str(Path(__file__).resolve()), "--serve", name, "--device", device]
            command += ["--size", str(options.size), "--steps", str(1 if name == "input" else options.steps)]
            settings = environment | {"KERAS_BACKEND": "jax" if name == "jax" else "tensorflow"}
            if device == "cpu":
                settings |= {"JAX_PLATFORMS": "cpu"}
            with contextlib.closing(Contender(command, settings, Path(folder))) as contender:
                if name == "input":
                    case = {"precision": "uint8", "batch": TILES * LINKS}
                    reading = {kind: contender.ask(case | {"kind": kind}, deadline) for kind in READERS}
                    left_out += list(reading.values()).count(NO_TIME)
                    any_rate = any(not isinstance(rate, str) for rate in reading.values())
                    continue
                kinds = ["inference", "training"]
                kinds += ["training with XLA"] if name == "tensorflow" and device == "gpu" else []
                for batch, precision in itertools.product(options.batch, options.precision):
                    case = {"precision": precision, "batch": batch}
                    found = {kind: contender.ask(case | {"kind": kind}, deadline) for kind in kinds}
                    print(row_of(NAMES[name], precision, batch, options.size, found, card), flush=True)
                    left_out += NO_TIME in found.values()
                    rates = {kind: value for kind, value in found.items() if not isinstance(value, str)}
                    any_rate = any_rate or bool(rates)
                    trained = max([trained, *(value for kind, value in rates.items() if kind != "inference")])
    if reading:
        print(f"\n| input pipeline alone, {os.cpu_count()} cores | examples/s | of the fastest training step |")
        print("|---|---|---|")
    for kind, rate in reading.items():
        said = f"- ({rate})" if isinstance(rate, str) else f"{rate:,.0f}"
        ratio = "-" if isinstance(rate, str) or not trained else f"{rate / trained:.2f} times"
        print(f"| hpaloc, {kind} | {said} | {ratio} |")
    if left_out:
        print(f"\nThe time of {options.minutes:g} minutes was too short for {left_out} rows (see --minutes, --batch).")
    return any_rate


def positive(text: str) -> int:
    """Return a number of the command line that is at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def main() -> None:
    """Print machine, device and versions, the table, and the input pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="the most time that everything may take")
    parser.add_argument("--batch", type=positive, nargs="+", default=[256, 128, 32, 512])
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--size", type=int, default=224, help="px, at least 32")
    parser.add_argument("--steps", type=positive, default=10, help=f"in each of {ROUNDS} rounds")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"], help="auto: a GPU if there is one")
    parser.add_argument("--contender", nargs="+", choices=CONTENDERS, help="default: what is installed")
    parser.add_argument("--serve", choices=list(MAKERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.size, options.steps, options.device)
        return
    end = time.monotonic() + 60 * options.minutes
    card = None if options.device == "cpu" else first_card()
    device = ("gpu" if card else "cpu") if options.device == "auto" else options.device
    print(first_line(device, card))
    if options.contender is None:
        has = {name: importlib.util.find_spec(name) is not None for name in ("tensorflow", "jax", "torch")}
        options.contender = [name for name in has if has[name] and not (name == "jax" and has["tensorflow"])]
        options.contender += ["input"] if has["tensorflow"] else []
        if not has["tensorflow"]:
            print(f"TensorFlow is not installed here: no input pipeline{'' if has['jax'] else ', and no JAX either'}.")
        if not has["torch"]:
            print("PyTorch is not installed here: no comparison with it.")
    if "jax" in options.contender:
        print("Keras on JAX: keras.applications.ResNet50 with hpaloc's head, since hpaloc's network needs TensorFlow.")
    name = card[0] if card else None
    peaks = {precision: peak_of(name, precision) for precision in ("float32", "bfloat16")}
    said = [f"{precision} {peak / 1e12:g} TFLOPS" for precision, peak in peaks.items() if peak]
    print(f"peak of the device, dense: {', '.join(said) or 'not known'} (float32 is TF32 where the card has it)")
    forward = flop_of("inference", options.size) / 1e9
    print(f"ResNet-50, {options.size} px: {forward:.2g} GFLOP forward, three times that to train\n")
    if not measure(options, device, name, end):
        raise SystemExit("Nothing was measured.")


if __name__ == "__main__":
    main()
