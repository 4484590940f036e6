"""Measure the segmentation and write its results page.

Usage: python benchmarks/segmentation.py [--data FOLDER] [--overlays FOLDER] [--out docs/segmentation.md]

FOLDER of --data holds hpa-2021/, hpa-cells-5/ and labelling/ (see docs/segmentation.md); for missing data the
page says so. Overlays of real fields are written only if --overlays names a folder. The comparison with hpacellseg's
label_cell runs where `hpacellseg` can be imported, in the same process.
"""

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.rle import MAX_PIXELS
from hpaloc.segmentation import cells as cells_of_nuclei
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.labelling import label_maps
from hpaloc.segmentation.local_workers import start_local_workers
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import WORKER_MB, segment_to_files
from hpaloc.simulate.field import simulate_field

SETTINGS = SegmentationSettings(backend="watershed", scale=0.25)
COLOURS = ("red", "yellow", "blue")
# Of the simulated fields.
PATTERNS = [(0,), (2,), (5,), (7,), (9,), (11,), (13,), (14,), (16,), (18,)]

Images = dict[str, np.ndarray]
Change = Callable[[Images, np.ndarray], tuple[Images, np.ndarray, float]]

# A shard of `fields` simulated fields through the whole driver, in a process of its own; prints the peak of the sum of
# the memory of the process and its workers, in MB.
MEMORY_JOB = """
import sys, threading, time
sys.path.insert(0, {root!r})
import psutil
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.manifests import ManifestRow

peak = 0

def watch():
    global peak
    me = psutil.Process()
    while True:
        total = 0
        for process in (me, *me.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                pass
        peak = max(peak, total)
        time.sleep(0.05)

if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    paths = {{c: {folder!r} + f"/f_{{c}}.png" for c in ("red", "green", "blue", "yellow")}}
    rows = [ManifestRow(f"f{{n}}", None, 0.08, paths=paths) for n in range({fields})]
    segment_shard(rows, {folder!r} + "/out{fields}", SegmentationSettings(), DaskSettings(), 1, 3000, 0.0)
    print(peak / 1e6)
"""


def overlaps(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the IoU of each true cell with each found one."""
    n = int(found.max()) + 1
    shared = np.bincount((truth.astype(np.int64) * n + found).ravel(), minlength=(int(truth.max()) + 1) * n)
    shared = shared.reshape(-1, n)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return (shared / np.maximum(union, 1))[1:, 1:]


def agreement(truth: np.ndarray, found: np.ndarray, least: float = 0.6) -> tuple[int, int, float, float]:
    """Return true and found cells, F1 at IoU `least`, and the mean IoU of the matched cells."""
    iou = overlaps(truth, found)
    hit = iou >= least
    f1 = 2 * hit.sum() / max(truth.max() + found.max(), 1)
    return int(truth.max()), int(found.max()), float(f1), float(iou[hit].mean()) if hit.any() else 0.0


def overlay(
    images: dict[str, np.ndarray], nuclei: np.ndarray, cells: np.ndarray, truth: np.ndarray | None
) -> np.ndarray:
    """Draw outlines over a field: cells yellow, nuclei cyan, truth white; (h, w, 3) BGR, 1200 px wide."""
    scale = 1200 / cells.shape[1]
    shape = (1200, round(cells.shape[0] * scale))
    channels = []
    for colour in ("blue", "yellow", "red"):
        small = cv2.resize(images[colour].astype(np.float32), shape, interpolation=cv2.INTER_AREA)
        channels.append(np.clip(small / max(float(np.percentile(small, 99.7)), 1e-6), 0, 1) ** 0.6)
    picture = (np.dstack(channels) * 255).astype(np.uint8)
    for labels, colour in ((truth, (255, 255, 255)), (cells, (0, 255, 255)), (nuclei, (255, 200, 0))):
        if labels is not None:
            small = cv2.resize(labels.astype(np.float32), shape, interpolation=cv2.INTER_NEAREST)
            edge = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
            picture[edge] = colour
    return picture


def read(folder: Path, name: str, suffix: str) -> dict[str, np.ndarray]:
    return {colour: cv2.imread(str(folder / f"{name}_{colour}.{suffix}"), cv2.IMREAD_UNCHANGED) for colour in COLOURS}


def real_fields(data: Path, overlays: Path | None) -> list[str]:
    """Rows of the table of real fields."""
    masks = sorted((data / "hpa-2021/masks").glob("*_cellmask.png"))
    if not masks:
        return ["| (not measured: no hpa-2021/ in the data folder) | | | | |"]
    rows = []
    for path in masks:
        name = path.name.removesuffix("_cellmask.png")
        images, truth = read(data / "hpa-2021/images", name, "png"), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        nuclei, cells = segment_field(images, 0.08, SETTINGS)
        n_true, n_found, f1, iou = agreement(truth, cells)
        rows.append(f"| {name[:8]} ({truth.shape[0]} px) | {n_true} | {n_found} | {f1:.3f} | {iou:.3f} |")
        if overlays is not None:
            cv2.imwrite(str(overlays / f"{name}.png"), overlay(images, nuclei, cells, truth))
    return rows


def clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def changes() -> dict[str, Change]:
    """What is done to a field that should not change its cells: images and truth to images, truth and pixel size."""
    rng = np.random.default_rng(0)

    def each(change: Callable[[np.ndarray], np.ndarray], *colours: str) -> Change:
        def changed(images: Images, truth: np.ndarray) -> tuple[Images, np.ndarray, float]:
            new = {colour: change(images[colour].astype(np.float32)) for colour in colours or COLOURS}
            return {**images, **{c: x if x.dtype == np.uint16 else clipped(x) for c, x in new.items()}}, truth, 0.08

        return changed

    def leak(colour: str, share: float) -> Change:
        def leaked(images: Images, truth: np.ndarray) -> tuple[Images, np.ndarray, float]:
            blue = clipped(images["blue"] + share * images[colour].astype(np.float32))
            return {**images, "blue": blue}, truth, 0.08

        return leaked

    return {
        "none": lambda images, truth: (images, truth, 0.08),
        "0.3 times as bright": each(lambda x: 0.3 * x),
        "16 bit, 200 times as bright, offset 500": each(lambda x: (200 * x + 500).astype(np.uint16)),
        "Gaussian noise of 8 grey levels": each(lambda x: x + rng.normal(0, 8, x.shape)),
        "blurred by 2 px": each(lambda x: cv2.GaussianBlur(x, (0, 0), 2)),
        "background rising by 30 grey levels": each(lambda x: x + np.linspace(0, 30, x.shape[1])),
        "half as bright on one side": each(lambda x: x * np.linspace(0.5, 1, x.shape[1])),
        "gamma 0.7": each(lambda x: 255 * (x / 255) ** 0.7),
        "gamma 1.4": each(lambda x: 255 * (x / 255) ** 1.4),
        "turned by 90°": lambda images, truth: (
            {colour: np.ascontiguousarray(np.rot90(image)) for colour, image in images.items()},
            np.ascontiguousarray(np.rot90(truth)),
            0.08,
        ),
        "red 0.2 times as bright": each(lambda x: 0.2 * x, "red"),
        "yellow 0.2 times as bright": each(lambda x: 0.2 * x, "yellow"),
        "red 4 times as bright, saturated": each(lambda x: 4 * x, "red"),
        "red absent": each(lambda x: 0 * x, "red"),
        "yellow absent": each(lambda x: 0 * x, "yellow"),
        "15 % of red in blue": leak("red", 0.15),
        "30 % of red in blue": leak("red", 0.3),
        "15 % of yellow in blue": leak("yellow", 0.15),
        "pixel size 10 % too small": lambda images, truth: (images, truth, 0.072),
        "pixel size 10 % too large": lambda images, truth: (images, truth, 0.088),
    }


def robustness(data: Path) -> list[str]:
    """The table of the real fields after each change, F1 / mean IoU."""
    masks = sorted((data / "hpa-2021/masks").glob("*_cellmask.png"))
    if not masks:
        return ["| (not measured: no hpa-2021/ in the data folder) |", "|---|"]
    names = [path.name.removesuffix("_cellmask.png") for path in masks]
    fields = [read(data / "hpa-2021/images", name, "png") for name in names]
    truths = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in masks]
    rows = [f"| change | {' | '.join(name[:8] for name in names)} |", "|---|" + "---|" * len(names)]
    for what, change in changes().items():
        scores = []
        for images, truth in zip(fields, truths, strict=True):
            changed, turned, pixel_size = change(images, truth)
            _, _, f1, iou = agreement(turned, segment_field(changed, pixel_size, SETTINGS)[1])
            scores.append(f"{f1:.3f} / {iou:.3f}")
        rows.append(f"| {what} | {' | '.join(scores)} |")
    return rows


def grid_slots(data: Path) -> str:
    """One sentence on the fields of single cells in 3 x 3 slots."""
    occupied = 0
    one = np.zeros(4, int)
    for blue in sorted((data / "hpa-cells-5/images").glob("*_blue.jpg")):
        images = read(blue.parent, blue.name.removesuffix("_blue.jpg"), "jpg")
        nuclei, cells = segment_field(images, 0.08, SETTINGS)
        area = np.bincount(cells.ravel())
        side = cells.shape[0] // 3
        rows, columns = np.indices(cells.shape) // side
        slot = rows * 3 + columns
        inside = np.stack([np.bincount(cells[slot == k], minlength=area.size)[1:] for k in range(9)])
        centres = []
        for labels in (cells, nuclei):
            middle = ndimage.center_of_mass(labels > 0, labels, np.arange(1, area.size))
            found = np.array([int(y) // side * 3 + int(x) // side for y, x in middle], int)
            centres.append(np.bincount(found, minlength=9))
        for k in range(9):
            if images["blue"][slot == k].max() <= 40:
                continue
            occupied += 1
            share = inside[k] / area[1:]
            one += np.array([(share > 0.5).sum(), centres[0][k], centres[1][k], (share > 0.02).sum()]) == 1
    if not occupied:
        return "not measured: no hpa-cells-5/ in the data folder."
    percent = [f"{n} ({100 * n / occupied:.1f} %)" for n in one]
    return (
        f"of {occupied} occupied slots, {percent[0]} hold most of exactly one cell, {percent[1]} the centre of exactly "
        f"one, {percent[2]} the centre of exactly one nucleus; {percent[3]} hold more than 2 % of exactly one cell "
        "(if a cell is cut at a slot's edge, its outline extends some 8 px past this hard edge into the next slot)."
    )


def simulated() -> list[str]:
    """Rows of the table of simulated fields."""
    rows, scores = [], []
    for seed, labels in enumerate(PATTERNS):
        field = simulate_field(f"bench{seed}", labels, seed)
        _, cells = segment_field(field.images, 0.16, SETTINGS)
        n_true, n_found, f1, iou = agreement(field.cells, cells)
        scores.append((f1, iou))
        rows.append(f"| {seed} | {n_true} | {n_found} | {f1:.3f} | {iou:.3f} |")
    mean = np.mean(scores, axis=0)
    return [*rows, f"| mean | | | **{mean[0]:.3f}** | {mean[1]:.3f} |"]


def with_truth(data: Path) -> list[tuple[str, list[tuple[Images, np.ndarray, float]]]]:
    """The simulated fields of ``simulated``, and the real ones of ``real_fields``: images, true cells, pixel size."""
    fields = [simulate_field(f"bench{seed}", labels, seed) for seed, labels in enumerate(PATTERNS)]
    sources = [("simulated", [(field.images, field.cells, 0.16) for field in fields])]
    for path in sorted((data / "hpa-2021/masks").glob("*_cellmask.png")):
        name = path.name.removesuffix("_cellmask.png")
        images, truth = read(data / "hpa-2021/images", name, "png"), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        sources.append((name[:8], [(images, truth, 0.08)]))
    return sources


def distances(data: Path) -> list[str]:
    """The table of cells from nuclei alone: mean best IoU of the true cells, by the distance from a nucleus."""
    sources = with_truth(data)
    rows = [f"| µm | {' | '.join(name for name, _ in sources)} |", "|---|" + "---|" * len(sources)]
    shipped = cells_of_nuclei.REACH
    for reach in (4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0):
        cells_of_nuclei.REACH = reach
        scores = []
        for _, fields in sources:
            found = [segment_field({"blue": images["blue"]}, size, SETTINGS)[1] for images, _, size in fields]
            best = [overlaps(truth, cells).max(axis=1) for (_, truth, _), cells in zip(fields, found, strict=True)]
            scores.append(f"{np.mean([own.mean() for own in best]):.3f}")
        rows.append(f"| {reach:.0f} | {' | '.join(scores)} |")
    cells_of_nuclei.REACH = shipped
    return rows


def fewer_colours(data: Path) -> list[str]:
    """The table of the cells found without red, yellow or both, F1 / mean IoU, of the simulated and each real field."""
    sources = with_truth(data)
    rows = [f"| colours | {' | '.join(name for name, _ in sources)} |", "|---|" + "---|" * len(sources)]
    for colours in (COLOURS, ("red", "blue"), ("yellow", "blue"), ("blue",)):
        scores = []
        for _, of_source in sources:
            found = []
            for images, truth, pixel_size in of_source:
                _, cells = segment_field({colour: images[colour] for colour in colours}, pixel_size, SETTINGS)
                found.append(agreement(truth, cells)[2:])
            scores.append("{:.3f} / {:.3f}".format(*np.mean(found, axis=0)))
        rows.append(f"| {', '.join(colours)} | {' | '.join(scores)} |")
    return rows


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Processor time of the quickest of several calls; other jobs on the machine count less than in wall time."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best


def labelling(data: Path) -> list[str]:
    """Rows of the table of the labelling step."""
    cases = sorted((data / "labelling").glob("*.npz"))
    if not cases:
        return ["| (not measured: no labelling/ in the data folder) | | | | | | |"]
    try:
        from hpacellseg.utils import label_cell
    except ImportError:
        label_cell = None
    rows = []
    for path in cases:
        case = np.load(path)
        nuclei_map, cell_map, truth = case["nuclei_pred"], case["cell_pred"], case["cell_label"]
        ours = seconds(lambda n=nuclei_map, c=cell_map: label_maps(n, c), 3)
        quick = seconds(lambda n=nuclei_map, c=cell_map: label_maps(n, c, reduce=4), 3)
        theirs = seconds(lambda n=nuclei_map, c=cell_map: label_cell(n.copy(), c.copy()), 1) if label_cell else None
        ratio = [f"{theirs / mine:.1f}" if theirs else "hpacellseg not installed" for mine in (ours, quick)]
        found = [agreement(truth, label_maps(nuclei_map, cell_map, reduce=k)[1], 0.5) for k in (1, 4)]
        rows.append(
            f"| {truth.shape[0]} px, {truth.max()} cells | {found[0][1]} | {found[0][3]:.4f} | {ours:.3f} s "
            f"| {ratio[0]} | {found[1][3]:.3f} | {quick:.3f} s | {ratio[1]} |"
        )
    return rows


def throughput(folder: Path) -> str:
    """One sentence on fields per minute and core, and the shares of the steps, from the quickest of ten runs."""
    task = {
        "field": "f",
        "paths": {colour: str(folder / f"f_{colour}.png") for colour in COLOURS},
        "states": {},
        "pixel_size": 0.08,
        "settings": asdict(SETTINGS),
        "out_dir": str(folder),
        "chunk_above": None,
        "max_pixels": MAX_PIXELS,
        "cell_mask": None,
        "nucleus_mask": None,
        "tables": {},
    }
    # A worker's process has settings of its own, such as of its memory.
    with start_local_workers(1, WORKER_MB["watershed"]) as workers:
        runs = [workers.client.submit(segment_to_files, task, pure=False).result()["seconds"] for _ in range(10)]
    spent = min(runs, key=lambda run: sum(run.values()))
    total = sum(spent.values())
    shares = ", ".join(f"{step} {100 * value / total:.0f} %" for step, value in spent.items())
    return f"{60 / total:.0f} fields of 2048 x 2048 px per minute and core, in a Dask worker; {shares}."


def memory(folder: Path) -> list[str]:
    """Rows of the table of peak memory against the number of fields."""
    rows = []
    for fields in (4, 64):
        job = folder / f"job{fields}.py"
        root = str(Path(__file__).resolve().parents[1])
        job.write_text(MEMORY_JOB.format(root=root, folder=str(folder), fields=fields))
        done = subprocess.run([sys.executable, str(job)], capture_output=True, text=True, check=True)
        rows.append(f"| {fields} | {float(done.stdout.split()[-1]):.0f} MB |")
    return rows


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared/data"
    parser.add_argument("--data", type=Path, default=default, help="folder of real fields and probability maps")
    parser.add_argument("--overlays", type=Path, help="folder for overlay pictures of the real fields")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs/segmentation.md")
    arguments = parser.parse_args()
    if arguments.overlays:
        arguments.overlays.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    data = arguments.data
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        field = simulate_field("throughput", (0,), 1, shape=(2048, 2048), pixel_size=0.08)
        for colour, image in field.images.items():
            cv2.imwrite(str(folder / f"f_{colour}.png"), image)
        page = PAGE.format(
            machine=f"{platform.machine()}, Python {platform.python_version()}, one core",
            real="\n".join(real_fields(data, arguments.overlays)),
            robustness="\n".join(robustness(data)),
            slots=grid_slots(data),
            simulated="\n".join(simulated()),
            fewer="\n".join(fewer_colours(data)),
            distances="\n".join(distances(data)),
            labelling="\n".join(labelling(data)),
            throughput=throughput(folder),
            memory="\n".join(memory(folder)),
        )
    arguments.out.write_text(page)


PAGE = """# Segmentation: method and measurements

Written by `benchmarks/segmentation.py` ({machine}). `--data` names the folder with
the real fields, and `--overlays` a folder for pictures of them. Real images and their overlays are not part of the
repository.

## Backend `watershed`

F1 counts a cell as found if its IoU with a true cell is at least 0.6. The mean IoU is over the cells found.

Real fields of the 2021 competition, compared with the masks of hpacellseg:

| field | true cells | found | F1 at IoU 0.6 | mean IoU |
|---|---|---|---|---|
{real}

The same fields after changes that should not affect the result, F1 / mean IoU:

{robustness}

Single real cells on black, 3 x 3 per field: {slots}

Simulated fields (1024 x 1024 px of 0.16 µm), each with a different pattern:

| seed | true cells | found | F1 at IoU 0.6 | mean IoU |
|---|---|---|---|---|
{simulated}

### Without red, yellow or both

A collection may lack red, yellow or both ([data.md](data.md#fewer-colours)). With one of them, cells grow over that one
alone. With neither, a cell is what is within 8 µm of its nucleus, and not nearer to another. F1 at IoU 0.6 / mean IoU:

{fewer}

8 µm is a compromise between small and large cells. Programs that grow cells from nuclei by a distance usually offer
5 µm, which is too little for most cells here. The best IoU of a true cell, in the mean:

{distances}

Outlines without red and yellow say nothing about the shape of a cell: measurements of its edge (`ring`) and its area
describe the circle around its nucleus, and a location at the edge of a large cell (plasma membrane, focal sites) is
outside of it.

## Labelling of probability maps

Compared with `label_cell` of hpacellseg on the same maps. Times are processor time of one core. Ratios are the time of
hpacellseg over that of hpaloc, measured in the same run if hpacellseg can be imported.

| map | cells | mean IoU | time | times faster | reduced: mean IoU | time | times faster |
|---|---|---|---|---|---|---|---|
{labelling}

## The whole job

{throughput}

Peak memory of a job (driver and one worker) by the number of fields in its shard:

| fields | peak |
|---|---|
{memory}

Fields above `dask.chunk_above` are segmented block by block with dask-image. The blocks overlap by 60 µm, and their
labels are joined: if several blocks see an object, the whole object is taken from the block whose core holds most of
it. A field of 12,288 x 12,288 px was made by repeating a real field of 2048 px. Away from the seams, it has the cells
of the real field: 396 of 396 at an IoU of 0.9 or more (the second field: 108 of 108), within 2.0 GB.
`tests/library/test_segmentation_blocks.py` requires 99 % and 4 GB.

Of an OME-Zarr, no channel of such a field is in memory as a whole (`benchmarks/large_field.py`): a field of
10,000 x 10,000 px of 8 bits, of 0.08 µm, takes 0.98 GB, the job with its worker together.

## How cells are found

The field is resampled to 0.32 µm per pixel (`segmentation.scale` 0.25), whatever its own pixel size. In the blue
channel, an edge is where the signal falls to half of the local level, so dim nuclei are found next to bright ones.
Bodies are split where both width and brightness have a neck, and merged again if no dark line separates them. A dim
object is kept if it is compact and its edge is sharp. If red or yellow leaks into blue, that is subtracted first: the
5th percentile of blue divided by that colour, where the colour is bright. Nothing is subtracted of a colour that mostly
shows nuclei itself.

Cells grow from the nuclei over the sum of red and yellow. Each of the two is first scaled to its usual level next to
the nuclei, unless it holds only noise. Every pixel of the foreground is assigned to the nearest nucleus along a path
that avoids valleys and steps of brightness and prefers the direction of the fibres, which keeps long, crossing cells
whole. Touching nuclei with a bright border between them are one cell. Outlines are redrawn at full size, smoothed over
1.2 µm.

A cell body without a nucleus is assigned to the cell that it is connected to; an isolated one is background.

`hpacellseg` has one network for cells in red, yellow and blue, and another (`dpn_unet_cell_v2.pth`) for cells in red
and blue, whose second plane is zero; a collection without yellow is segmented by the latter. Without red it has none.
[backends.md](backends.md) has its two kinds of files, the backend `instanseg`, and how to add another.
"""

if __name__ == "__main__":
    main()
