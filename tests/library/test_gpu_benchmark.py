"""The benchmark of GPUs, tiny and on the CPU: its table, the peaks that it counts by, and the time that it keeps."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu
import numpy as np
import pytest

pytestmark = pytest.mark.network

PROGRAM = Path(gpu.__file__)
TINY = ("--device", "cpu", "--size", "32", "--steps", "1", "--precision", "float32")
# No machine has the memory for it.
HUGE = 10**12


def run(*arguments, check=0):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == check, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def rows_of(said, name):
    lines = [line.strip("| ").split(" |") for line in said.splitlines() if line.startswith(f"| {name}")]
    return [[cell.strip() for cell in line] for line in lines]


def check_tiny(said, name):
    """Check a table with one row that was measured and one that fits no memory."""
    measured, too_large = rows_of(said, name)
    assert measured[1:3] == ["float32", "2"]
    assert float(measured[3]) > 0
    assert float(measured[5]) > 0
    assert (measured[4], measured[6]) == ("-", "-")
    assert too_large[2:] == [str(HUGE), "-", "-", "-", "-", "out of memory"]


def test_hpaloc_and_its_input_are_measured():
    version = pytest.importorskip("tensorflow").__version__
    said = run(*TINY, "--contender", "tensorflow", "input", "--batch", 2, HUGE)
    first = said.splitlines()[0]
    assert first.startswith(f"machine: {os.cpu_count()} cores, ")
    assert "device: the CPU" in first
    assert f"TensorFlow {version}" in first
    check_tiny(said, "hpaloc, TensorFlow")
    raw, kept = (float(row[1].replace(",", "")) for name in gpu.READERS for row in rows_of(said, f"hpaloc, {name}"))
    assert 0 < raw < kept


def test_keras_is_measured_on_jax():
    jax = pytest.importorskip("jax", reason="the environment of `make test-latest` has JAX")
    said = run(*TINY, "--contender", "jax", "--batch", 2, HUGE)
    assert f"JAX {jax.__version__}" in said.splitlines()[0]
    assert "Keras on JAX: keras.applications.ResNet50" in said
    check_tiny(said, "Keras on JAX")


@pytest.mark.slow
def test_pytorch_is_measured():
    pytest.importorskip("torch", reason="the environment of `make test-torchscript` has PyTorch")
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler")
    check_tiny(run(*TINY, "--contender", "torch", "--batch", 2, HUGE), "PyTorch, compiled")


@pytest.mark.parametrize("contender", ["tensorflow", "jax", "torch"])
def test_a_gpu_that_is_absent_is_said(contender):
    pytest.importorskip(contender)
    if shutil.which("nvidia-smi"):
        pytest.skip("here may be a GPU")
    said = run("--device", "gpu", "--size", 32, "--contender", contender, "--batch", 2, check=1)
    assert "device: a GPU that nvidia-smi does not name" in said.splitlines()[0]
    for row in rows_of(said, gpu.NAMES[contender]):
        assert row[3:7] == ["-", "-", "-", "-"]
        assert "sees no GPU here" in row[7]
    assert said.endswith("Nothing was measured.\n")


def test_the_input_alone_is_a_measurement():
    pytest.importorskip("tensorflow")
    said = run(*TINY, "--contender", "input")
    assert "Nothing was measured" not in said
    assert not rows_of(said, "contender")
    assert all(rows_of(said, f"hpaloc, {name}") for name in gpu.READERS)


def test_what_does_not_fit_into_the_time_is_left_out():
    if not importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is not installed here")
    start = time.monotonic()
    said = run(*TINY, "--minutes", 0.02, "--contender", "tensorflow", "--batch", 2, 4, check=1)
    assert time.monotonic() - start < 20
    rows = rows_of(said, "hpaloc, TensorFlow")
    assert [row[2:] for row in rows] == [[batch, "-", "-", "-", "-", gpu.NO_TIME] for batch in ("2", "4")]
    assert "The time of 0.02 minutes was too short for 2 rows" in said


def ask(tmp_path, program, seconds):
    contender = gpu.Contender([sys.executable, "-c", program], os.environ, tmp_path)
    try:
        return [contender.ask({}, time.monotonic() + seconds) for _ in range(2)]
    finally:
        contender.close()


def test_a_process_is_ended_at_its_deadline(tmp_path):
    start = time.monotonic()
    contender = gpu.Contender([sys.executable, "-c", "import time; time.sleep(100)"], os.environ, tmp_path)
    deadline = start + 2
    assert [contender.ask({}, deadline) for _ in range(3)] == [gpu.NO_TIME] * 3
    assert 2 <= time.monotonic() - start < 20
    assert contender.process is None


def test_how_a_process_died_is_said_and_the_next_case_has_a_new_one(tmp_path):
    (killed, again) = ask(tmp_path, f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})", 60)
    assert killed == again == "the process ended with signal SIGKILL"
    (failed, _) = ask(tmp_path, "import sys; sys.exit('no | here')", 60)
    assert failed == "the process ended with exit status 1: no / here"
    (first, second) = ask(tmp_path, "input(); print('{\"rate\": 2.5}')", 60)
    assert (first, second) == (2.5, "the process ended with exit status 0")


@pytest.mark.parametrize(
    ("card", "float32", "bfloat16"),
    [
        ("NVIDIA H200", 494.5, 989),
        ("NVIDIA H100 80GB HBM3", 494.5, 989),
        ("NVIDIA H100 PCIe", 378, 756),
        ("NVIDIA H100 NVL", 417.5, 835),
        ("NVIDIA A100-SXM4-40GB", 156, 312),
        ("NVIDIA A100 80GB PCIe", 156, 312),
        ("NVIDIA L4", 60, 121),
        ("NVIDIA L40S", 183, 362),
        ("NVIDIA GeForce RTX 4090", 82.6, 165.2),
        ("Tesla V100-SXM2-16GB", 15.7, None),
        ("Tesla T4", 8.1, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("NVIDIA H20", None, None),
        ("GRID A100-10C", None, None),
        ("NVIDIA A10-24Q", None, None),
        ("NVIDIA A10G", None, None),
        (None, None, None),
    ],
)
def test_a_card_has_its_own_peak(card, float32, bfloat16):
    found = [gpu.peak_of(card, precision) for precision in ("float32", "bfloat16")]
    assert [peak and peak / 1e12 for peak in found] == [float32, bfloat16]


def test_the_card_is_what_nvidia_smi_lists_first(monkeypatch):
    listed = "NVIDIA H200, 9.0, 570.86.15, Disabled\nNVIDIA L4, 8.9, 570.86.15, [N/A]\n"
    assert gpu.card_of(listed) == ("NVIDIA H200", "9.0", "570.86.15")
    assert gpu.card_of("NVIDIA L4, 8.9, 570.86.15, [N/A]") == ("NVIDIA L4", "8.9", "570.86.15")
    part = gpu.card_of("NVIDIA H200, 9.0, 570.86.15, Enabled")
    assert part == ("NVIDIA H200 (MIG)", "9.0", "570.86.15")
    assert gpu.peak_of(part[0], "bfloat16") is None
    assert gpu.card_of("No devices were found\n") is None
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert gpu.first_card() is None
    said = gpu.first_line("gpu", gpu.card_of(listed))
    assert "; device: NVIDIA H200, compute capability 9.0, driver 570.86.15; Python 3." in said


@pytest.mark.parametrize("size", [64, 224])
def test_the_share_counts_the_multiplications_of_the_network(size):
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    from hpaloc.network.resnet import classifier

    network = classifier(gpu.COLOURS, "sigmoid", size)
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    counted = sum(layer.count_params() * layer.output.shape[1] * layer.output.shape[2] for layer in layers)
    counted += sum(layer.kernel.shape[0] * layer.kernel.shape[1] for layer in network.layers if "Dense" in str(layer))
    assert gpu.flop_of("inference", size) == pytest.approx(2 * counted, rel=0.005)
    assert gpu.flop_of("training with XLA", size) == gpu.flop_of("training", size) == 3 * gpu.flop_of("inference", size)


def test_a_row_has_the_faster_step_and_says_what_is_missing():
    found = {"inference": 20000.0, "training": 2000.0, "training with XLA": 3000.0}

    def row(changed, card="NVIDIA H200"):
        return gpu.row_of("hpaloc", "bfloat16", 256, 224, found | changed, card)

    # 3,000 · 3 · 7.72e9 of 989e12, and 20,000 · 7.72e9.
    assert row({}) == "| hpaloc | bfloat16 | 256 | 3,000 | 7 % | 20,000 | 16 % | XLA on, 2,000 without |"
    assert row({}, "NVIDIA X1") == "| hpaloc | bfloat16 | 256 | 3,000 | - | 20,000 | - | XLA on, 2,000 without |"
    assert row({"training": 4000.0}).endswith("| 4,000 | 9 % | 20,000 | 16 % | XLA off, 3,000 with |")
    failed = row({"training with XLA": "out of memory"})
    assert failed.endswith("| 2,000 | 5 % | 20,000 | 16 % | XLA off; training with XLA: out of memory |")
    nothing = row(dict.fromkeys(found, "out of memory"))
    assert nothing == "| hpaloc | bfloat16 | 256 | - | - | - | - | out of memory |"


def test_memory_that_is_not_there_is_the_reason():
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(tf.errors.ResourceExhaustedError) as raised:
        tf.zeros((10**15,), tf.uint8)
    assert gpu.reason_of(raised.value) == "out of memory"
    with pytest.raises(MemoryError) as raised:
        gpu.random_batch(HUGE, 32)
    assert gpu.reason_of(raised.value) == "out of memory"
    assert gpu.reason_of(ValueError("a | b\nc")) == "ValueError: a / b"
    assert gpu.reason_of(ValueError("Graph execution error:\n\nwhy")) == "ValueError: why"


def test_memory_that_jax_does_not_get_is_the_reason():
    jax = pytest.importorskip("jax", reason="the environment of `make test-latest` has JAX")
    with pytest.raises(Exception, match=re.compile("memory|EXHAUSTED", re.IGNORECASE)) as raised:
        jax.block_until_ready(jax.numpy.zeros((10**15,), jax.numpy.uint8))
    assert gpu.reason_of(raised.value) == "out of memory"


def test_values_that_are_not_finite_are_no_figure():
    with pytest.raises(FloatingPointError):
        gpu.images_per_second(lambda: float("nan"), np.asarray, 2, 1)
    # 3 steps of 2 images in 0.06 s, or more on a busy machine.
    assert 10 < gpu.images_per_second(lambda: time.sleep(0.02) or 1.0, np.asarray, 2, 3) <= 100
