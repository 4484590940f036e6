"""Small networks with the interface of hpacellseg's, trained on simulated fields in seconds. Needs torch."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch

from hpaloc.segmentation.hpacellseg import MARGIN, MEAN, STD, _prepared
from hpaloc.simulate.field import SimulatedField, simulate_field

STEPS, PATCH = 300, 128


def block(n_in: int, n_out: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for channels in (n_in, n_out):
        layers += [torch.nn.Conv2d(channels, n_out, 3, padding=1), torch.nn.BatchNorm2d(n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


class SmallUnet(torch.nn.Module):
    """Maps (N, 3, h, w) to the logits of nothing, border, body, (N, 3, h, w); sides must be multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        widths = [8, 16, 32, 32, 32]
        self.down = torch.nn.ModuleList([block(a, b) for a, b in zip([3, *widths], widths, strict=False)])
        self.up = torch.nn.ModuleList([block(a + b, a) for a, b in pairwise(widths)])
        self.head = torch.nn.Conv2d(widths[0], 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        for level in self.down:
            x = level(torch.nn.functional.max_pool2d(x, 2) if seen else x)
            seen.append(x)
        for level, skipped in zip(reversed(self.up), reversed(seen[:-1]), strict=True):
            x = level(torch.cat([torch.nn.functional.interpolate(x, scale_factor=2.0), skipped], dim=1))
        return self.head(x)


class SidesOf32(torch.nn.Module):
    """Replaces a network that halves its input five times: it rejects sides that are not multiples of 32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % 32 == x.shape[3] % 32 == 0, x.shape
        return x


def train(
    fields: Sequence[SimulatedField], colours: Sequence[str | None], labels_of: Callable[[SimulatedField], np.ndarray]
) -> SmallUnet:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = SmallUnet()
    inputs, targets = [], []
    for field in fields:
        height, width = (side // 2 for side in field.cells.shape)
        # A colour that is None is the empty plane of the network of two channels.
        images = field.images | {None: np.zeros_like(field.images["blue"])}
        small = [_prepared(images[colour], (height, width)) for colour in colours]
        inputs.append(torch.from_numpy((np.stack(small) - MEAN) / STD))
        labels = cv2.resize(labels_of(field).astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
        border = (cv2.dilate(labels, np.ones((3, 3))) != cv2.erode(labels, np.ones((3, 3)))) & (labels > 0)
        target = np.where(labels > 0, np.where(border, 1, 2), 0)
        padding = [(MARGIN, MARGIN + (-side) % MARGIN) for side in (height, width)]
        targets.append(torch.from_numpy(np.pad(target, padding, mode="symmetric")).long())
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=STEPS)
    for step in range(STEPS):
        k = rng.integers(len(inputs))
        top, left = (rng.integers(side - PATCH + 1) for side in targets[k].shape)
        patch = np.s_[..., top : top + PATCH, left : left + PATCH]
        x, y = inputs[k][patch][None], targets[k][patch][None]
        if step % 2:
            x, y = x.flip(3), y.flip(2)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def write_networks(folder: Path) -> dict[str, str]:
    """Train a nucleus and two cell networks for fields of 0.16 µm per pixel; return their files by key."""
    torch.set_num_threads(1)
    fields = [simulate_field(f"train{n}", (0,), n, shape=(512, 512)) for n in range(4)]
    networks = {
        "nuclei": train(fields, ["blue"] * 3, lambda field: field.nuclei),
        "cells": train(fields, ["red", "yellow", "blue"], lambda field: field.cells),
        "cells_without_yellow": train(fields, ["red", None, "blue"], lambda field: field.cells),
    }
    for name, network in networks.items():
        torch.save(network, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in networks}


class SmallInstanSeg(torch.nn.Module):
    """Labels bright regions, with the interface of a file of InstanSeg: pixel_size, cells_and_nuclei, (B, 2, h, w)."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.pixel_size = 0.5
        self.cells_and_nuclei = both

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        # The blue channel is the last.
        for plane in (x[:, -1], x.mean(1)):
            bright = (plane > 0.25)[:, None].float()
            numbers = torch.arange(1, plane.numel() + 1, dtype=torch.float32).reshape(bright.shape) * bright
            for _ in range(64):
                numbers = torch.nn.functional.max_pool2d(numbers, 3, stride=1, padding=1) * bright
            found.append(numbers[:, 0])
        return torch.stack(found, dim=1)


def write_instanseg(path: Path, both: bool = True) -> None:
    """Write a file with the interface of InstanSeg's; ``both``: whether it says that it finds nuclei and cells."""
    torch.jit.script(SmallInstanSeg(both)).save(str(path))
