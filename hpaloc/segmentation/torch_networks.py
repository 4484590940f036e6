"""Networks that run by torch: their device, and files of TorchScript."""

import logging
import os
from pathlib import Path
from typing import Any

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.weights import WeightsError

log = logging.getLogger("hpaloc")


class DeviceError(SetupError):
    """The settings require a GPU and there is none."""


def start_torch(wanted: str) -> str:
    """Limit torch to the threads of this worker, log its device, and return it for the setting ``device``.

    wanted: auto, cpu or cuda
    Raises DeviceError if a required GPU is absent.
    """
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = choose_device(wanted)
    log.info("networks on %s, torch %s", device, torch.__version__)
    return device


def choose_device(wanted: str) -> str:
    """Return the torch device for the setting ``device`` (auto, cpu, cuda).

    Raises DeviceError if a required GPU is absent.
    """
    import torch

    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise DeviceError(f"segmentation.device is {wanted}, but torch {torch.__version__} sees no GPU on this machine")
    return "cuda"


def load_script(path: Path, device: str) -> Any:
    """Return a network from a checked TorchScript file, in evaluation mode; raises WeightsError for another file."""
    import torch

    log.info("loading %s (digest checked)", path)
    try:
        return torch.jit.load(path, map_location=device).eval()
    except RuntimeError as error:
        # A trace of torch's own code may follow the first line.
        raise WeightsError(f"{path}: is not TorchScript ({str(error).splitlines()[0]})") from error
