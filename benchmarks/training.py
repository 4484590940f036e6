"""Compare the training and inference steps of the classifier with a plain Keras step and with PyTorch's ResNet-50.

Each runs in its own process, with the same batch, size, precision and number of threads. Their rounds take turns, so
that a change in the load of the machine affects all of them, and the best round of each counts. PyTorch (channels last,
torch.optim.Adam; at inference under torch.inference_mode) is timed if torch is installed; otherwise the reason is
printed. The input pipeline is timed on tiles written for it. To time it alone, give --precision and nothing after it.
Run: python benchmarks/training.py [--size 224] [--batch 32] [--threads 2] [--precision float32 bfloat16]
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = ("hpaloc", "keras", "torch")


def hpaloc_steps(size: int, batch: int, precision: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the training step of `hpaloc.training.fit.fit` and the inference step of `hpaloc.prediction`."""
    import keras
    import tensorflow as tf

    from hpaloc.network.device import precision_policy
    from hpaloc.network.inference import averaged
    from hpaloc.network.resnet import classifier
    from hpaloc.training.augmentation import Augmentation
    from hpaloc.training.optimiser import FusedAdam
    from hpaloc.training.scores import Accuracy, BalancedAccuracy, MacroAUC
    from hpaloc.training.settings import TrainSettings

    with precision_policy("mixed_bfloat16" if precision == "bfloat16" else "float32"):
        network = classifier(("red", "green", "blue"), "sigmoid", size)
        inputs = keras.Input((size, size, 3))
        trainer = keras.Model(inputs, network(Augmentation(TrainSettings())(inputs)))
        trainer.compile(
            FusedAdam(), "binary_crossentropy", metrics=[Accuracy(), BalancedAccuracy(), MacroAUC()], jit_compile=False
        )
        forward = averaged(network, 1)
    return _keras_steps(trainer, forward, size, batch, tf.uint8)


def keras_steps(size: int, batch: int, precision: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the steps of `keras.applications.ResNet50` as it comes, under the global precision policy."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    body = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg")
    outputs = keras.layers.Dense(19, activation="sigmoid", dtype="float32")(body.output)
    network = keras.Model(body.input, outputs)
    network.compile(keras.optimizers.Adam(), "binary_crossentropy", jit_compile=False)
    forward = tf.function(lambda images: network(images, training=False))
    return _keras_steps(network, forward, size, batch, tf.float32)


def _keras_steps(trainer, forward, size, batch, dtype):
    import tensorflow as tf

    images = tf.cast(tf.random.uniform((batch, size, size, 3), maxval=255), dtype)
    labels = tf.one_hot(tf.range(batch) % 19, 19)
    iterator = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    trainer.make_train_function()

    def infer():
        output = forward(images)
        return (output[0] if isinstance(output, tuple) else output).numpy()

    return lambda: float(trainer.train_function(iterator)["loss"]), infer


def torch_body() -> Any:
    """Return the layers of a ResNet-50 v1 in PyTorch, from images (n, 3, S, S) to (n, 2048)."""
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self, wide: int, narrow: int, stride: int) -> None:
            super().__init__()
            out = 4 * narrow

            def unit(a: int, b: int, kernel: int, step: int) -> list[nn.Module]:
                return [nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(b)]

            # The stride in the first convolution, as in Keras' ResNet-50.
            self.path = nn.Sequential(
                *unit(wide, narrow, 1, stride),
                nn.ReLU(inplace=True),
                *unit(narrow, narrow, 3, 1),
                nn.ReLU(inplace=True),
                *unit(narrow, out, 1, 1),
            )
            self.shortcut = nn.Sequential(*unit(wide, out, 1, stride)) if wide != out or stride > 1 else nn.Identity()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.path(x) + self.shortcut(x))

    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    wide = 64
    for narrow, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(wide, narrow, stride if block == 0 else 1))
            wide = 4 * narrow
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def torch_training_step(forward: Any, images: Any, labels: Any, optimizer: Any, loss: Any, autocast: Any) -> Any:
    """Make one training step in PyTorch; return the loss, a tensor on the device."""
    optimizer.zero_grad(set_to_none=True)
    with autocast:
        value = loss(forward(images), labels)
    value.backward()
    optimizer.step()
    return value.detach()


def torch_steps(size: int, batch: int, precision: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return the steps of a ResNet-50 v1 in PyTorch, channels last, autocast where bfloat16 is asked for."""
    import torch
    from torch import nn

    network = nn.Sequential(torch_body(), nn.Linear(2048, 19))
    network = network.to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.nn.functional.one_hot(torch.arange(batch) % 19, 19).float()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    loss = nn.BCEWithLogitsLoss()
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")

    def train() -> float:
        network.train()
        return torch_training_step(network, images, labels, optimizer, loss, autocast).item()

    def infer():
        network.eval()
        with torch.inference_mode(), autocast:
            return network(images).float().numpy()

    return train, infer


def serve(contender: str, size: int, batch: int, precision: str, threads: int) -> None:
    """Build one contender, then time a step for every line on stdin: ``train`` or ``infer`` and a number."""
    if contender == "torch":
        import torch

        torch.set_num_threads(threads)
    else:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
    train, infer = {"hpaloc": hpaloc_steps, "keras": keras_steps, "torch": torch_steps}[contender](
        size, batch, precision
    )
    for line in sys.stdin:
        kind, count = line.split()
        step = train if kind == "train" else infer
        step()
        seconds = []
        for _ in range(int(count)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(batch / min(seconds)), flush=True)


def pipeline_speed(size: int, count: int = 512) -> float:
    """Return the examples/s of the training pipeline alone on ``count`` tiles of 256 px, read and decoded."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]
    from model_inputs import write_training_data

    from hpaloc.records import training_dataset

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        examples = write_training_data(folder, {"train": count, "validation": 3}, 256, ("red", "green", "blue"))
        batches = training_dataset(folder / "train", examples, ("red", "green", "blue"), size).batch(32).prefetch(2)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            for _ in batches:
                pass
            seconds.append(time.perf_counter() - start)
    return count / min(seconds)


def compare(
    size: int, batch: int, precision: str, threads: int, rounds: int, steps: int
) -> dict[str, dict[str, float]]:
    """Return images/s of the best step by contender and kind."""
    contenders = [name for name in CONTENDERS if name != "torch" or importlib.util.find_spec("torch")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": str(threads)}
    servers = {}
    for name in contenders:
        command = [sys.executable, __file__, "--serve", name, "--size", size, "--batch", batch, "--threads", threads]
        command += ["--precision", precision]
        servers[name] = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
    best: dict[str, dict[str, float]] = {name: {"train": 0.0, "infer": 0.0} for name in contenders}
    # Inference first, as in a job that only predicts: after a training step in the same process PyTorch's is half as
    # fast again, since the memory that training took is kept and need not be mapped anew.
    for kind in ("infer", "train"):
        for number in range(rounds):
            # Turn about, so that none always follows the same other.
            for name in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                server = servers[name]
                print(kind, steps, file=server.stdin, flush=True)
                answer = server.stdout.readline()
                if not answer:
                    raise SystemExit(f"{name} failed; run it alone: {' '.join(map(str, server.args))}")
                best[name][kind] = max(best[name][kind], json.loads(answer))
    for server in servers.values():
        server.stdin.close()
        server.wait()
    return best


def main() -> None:
    """Print one line a precision and kind, the ratios, and the speed of the input pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.size, options.batch, options.precision[0], options.threads)
        return
    if options.precision and not importlib.util.find_spec("torch"):
        print("torch is not installed here: no comparison with PyTorch (try: pip install torch==2.13.0)")
    if options.precision:
        print(
            f"ResNet-50, {options.size} px, batch {options.batch}, {options.threads} threads, best step of "
            f"{options.rounds} rounds"
        )
    fastest = 0.0
    for precision in options.precision:
        best = compare(options.size, options.batch, precision, options.threads, options.rounds, options.steps)
        for kind in best["hpaloc"]:
            speeds = {name: best[name][kind] for name in best}
            line = ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items())
            ratios = ", ".join(
                f"{speeds['hpaloc'] / speed:.2f} of {name}" for name, speed in speeds.items() if name != "hpaloc"
            )
            print(f"{precision:9s} {kind}: images/s {line}; hpaloc is {ratios}", flush=True)
        fastest = max(fastest, best["hpaloc"]["train"])
    pipeline = pipeline_speed(options.size)
    ratio = f", {pipeline / fastest:.1f} times the fastest training step" if fastest else ""
    print(f"input pipeline alone: {pipeline:.0f} examples/s{ratio}")


if __name__ == "__main__":
    main()
