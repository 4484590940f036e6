"""Compare hpacellseg's networks as pickles and as TorchScript: fields per minute and core, and what they give.

usage: python benchmarks/network_formats.py [--fields 6] [--side 2048]

Runs in the environment of envs/hpacellseg.yaml (`.venv-hpacellseg`), which can load both. The published files are not
needed: networks of the published architecture (DPN-92 U-net of pytorch_zoo) with random weights are saved in both ways,
and so are the small networks of the tests, which learn to find the cells of simulated fields in a minute. Everything
runs in one thread; the two kinds take turns, and times are of the process.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from hpaloc.segmentation import hpacellseg
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.settings import NetworkWeights, SegmentationSettings
from hpaloc.simulate.field import simulate_field

PIXEL_SIZE = 0.08
ROUNDS = 3


def published_architecture() -> Any:
    """Return a network of the published architecture with random weights."""
    import torch
    from pytorch_zoo import abstract_model, dpn
    from pytorch_zoo.unet import DPNUnet

    # It would fetch an encoder trained on ImageNet.
    encoder = dict(abstract_model.encoder_params["dpn92"], init_op=partial(dpn.dpn92, pretrained=False), url=None)
    abstract_model.encoder_params["dpn92"] = encoder
    torch.manual_seed(0)
    return DPNUnet(3).eval()


def save_both(network: Any, folder: Path, name: str) -> None:
    """Save a network as a pickle and as TorchScript, by tracing, as the published files were made."""
    import torch

    torch.save(network, folder / f"{name}.pth")
    with torch.inference_mode():
        torch.jit.trace(network, torch.zeros(1, 3, 256, 256)).save(str(folder / f"{name}.pt"))


def settings_of(folder: Path, format: str) -> SegmentationSettings:
    """Return the settings of the networks of a folder."""
    ending = {"pickle": "pth", "torchscript": "pt"}[format]
    weights = {name: str(folder / f"{name}.{ending}") for name in ("nuclei", "cells")}
    return SegmentationSettings(backend="hpacellseg", device="cpu", weights=NetworkWeights(**weights, format=format))


def compare(folder: Path, fields: list[dict[str, np.ndarray]]) -> None:
    """Print the rates of both kinds, and how far their maps and masks are apart."""
    settings = {format: settings_of(folder, format) for format in ("pickle", "torchscript")}
    maps: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    best = dict.fromkeys(settings, np.inf)
    for format, of_format in settings.items():
        segmentator = hpacellseg.load(of_format)
        maps[format] = hpacellseg.probability_maps(segmentator, fields[:2], PIXEL_SIZE, of_format.scale)
    for _ in range(ROUNDS):
        for format, of_format in settings.items():
            hpacellseg.load(of_format)
            # The first calls compile TorchScript.
            for _ in range(2):
                segment_field(fields[0], PIXEL_SIZE, of_format)
            start = time.process_time()
            masks[format] = [segment_field(field, PIXEL_SIZE, of_format) for field in fields]
            best[format] = min(best[format], (time.process_time() - start) / len(fields))
    one, other = (np.concatenate([np.ravel(each) for field in maps[format] for each in field]) for format in settings)
    pairs = zip(*(masks[format] for format in settings), strict=True)
    same = sum(all(map(np.array_equal, one, other)) for one, other in pairs)
    cells = sum(int(found[1].max()) for found in masks["pickle"])
    rates = ", ".join(f"{format} {60 / seconds:.1f}" for format, seconds in best.items())
    print(
        f"{rates} fields per minute and core; maps differ by at most {np.abs(one.astype(int) - other).max()} of 255; "
        f"the same masks in {same} of {len(fields)} fields, {cells} cells"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--side", type=int, default=2048, help="px, at 0.08 µm")
    arguments = parser.parse_args()
    import torch
    from small_networks import write_networks

    torch.set_num_threads(1)
    shape = (arguments.side, arguments.side)
    fields = [
        dict(simulate_field(f"formats{n}", (0,), n, shape=shape, pixel_size=PIXEL_SIZE).images)
        for n in range(arguments.fields)
    ]
    with tempfile.TemporaryDirectory() as name:
        small, published = Path(name, "small"), Path(name, "published")
        small.mkdir()
        published.mkdir()
        for network, path in write_networks(small).items():
            save_both(torch.load(path, weights_only=False), small, network)
        for network in ("nuclei", "cells"):
            save_both(published_architecture(), published, network)
        print("networks of the tests: ", end="", flush=True)
        compare(small, fields)
        print("the published architecture: ", end="", flush=True)
        compare(published, fields)


if __name__ == "__main__":
    main()
