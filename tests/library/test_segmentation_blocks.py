"""Fields above dask.chunk_above: the same cells, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from segmented_fields import best_ious

from hpaloc.pixels.strips import as_array
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.blocks import Block, cut, joined
from hpaloc.segmentation.grid import grid_of
from hpaloc.segmentation.ready_made import Given
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.simulate.field import simulate_field

ROOT = Path(__file__).parents[2]
REAL = (ROOT / "../shared/data/hpa-2021").resolve()
SETTINGS = SegmentationSettings(backend="watershed", scale=0.25)


@pytest.mark.parametrize(("shape", "side", "margin", "multiple"), [((100, 70), 40, 10, 1), ((257, 64), 64, 30, 16)])
def test_cores_cover_a_field_once_and_windows_reach_the_margin(shape, side, margin, multiple):
    covered = np.zeros(shape, int)
    blocks = cut(shape, side, margin, multiple)
    assert len(blocks) > 1
    for block in blocks:
        covered[block.core] += 1
        for core, window, length in zip(block.core, block.window, shape, strict=True):
            assert window.start <= max(0, core.start - margin)
            assert window.stop >= min(length, core.stop + margin)
            assert window.start % multiple == core.start % multiple == 0
        height, width = (part.stop - part.start for part in block.core)
        assert np.zeros(shape)[block.window][block.core_in_window].shape == (height, width)
    assert (covered == 1).all()


def test_an_object_over_borders_and_corners_comes_out_once_and_whole():
    truth = np.zeros((90, 90), np.int32)
    truth[25:36, 25:36] = 1  # over a corner of four blocks
    truth[50:55, 20:44] = 2  # over a border
    truth[5:10, 5:10] = 3

    def find(block: Block) -> np.ndarray:
        return ndimage.label(truth[block.window] > 0)[0].astype(np.int32)

    blocks = cut(truth.shape, 50, 10)
    assert len(blocks) == 9
    found = joined(blocks, find, truth.shape)
    assert found.max() == 3
    assert (best_ious(truth, found) == 1).all()


def test_blocks_that_disagree_give_no_object_twice():
    truth = np.zeros((40, 80), np.int32)
    truth[10:30, 30:50] = 1

    def find(block: Block) -> np.ndarray:
        labels = truth[block.window].copy()
        if block.window[1].start:
            # The right block sees two halves, both of them in its core or near it.
            labels[20 - block.window[0].start :][labels[20 - block.window[0].start :] > 0] = 2
        return labels

    blocks = [
        Block((slice(0, 40), slice(0, 41)), (slice(0, 40), slice(0, 60))),
        Block((slice(0, 40), slice(41, 80)), (slice(0, 40), slice(20, 80))),
    ]
    found = joined(blocks, find, truth.shape)
    assert found.max() == 1
    np.testing.assert_array_equal(found > 0, truth > 0)


@pytest.fixture(scope="module")
def field():
    return simulate_field("blocks", (0,), 1, shape=(1024, 900))


def test_a_field_in_blocks_has_the_cells_of_the_field_in_one_piece(field):
    # Half of it is dim: a block that measured its own levels would find other cells there.
    images = {colour: image.copy() for colour, image in field.images.items()}
    for image in images.values():
        image[:, 450:] = image[:, 450:] * 0.6
    nuclei, cells = segment_field(images, 0.16, SETTINGS)
    nuclei_in_blocks, cells_in_blocks = segment_field(images, 0.16, SETTINGS, chunk_above=400)
    assert cells_in_blocks.max() == cells.max() > 10
    for one_piece, in_blocks in ((cells, cells_in_blocks), (nuclei, nuclei_in_blocks)):
        assert (best_ious(one_piece, in_blocks)[np.unique(one_piece)[1:] - 1] >= 0.98).mean() >= 0.98
    np.testing.assert_array_equal(nuclei_in_blocks[nuclei_in_blocks > 0], cells_in_blocks[nuclei_in_blocks > 0])


def test_odd_sizes_and_scales_go_in_blocks_too(field):
    images = {colour: image[:1001, :777] for colour, image in field.images.items()}
    settings = SegmentationSettings(scale=0.3)
    _, cells = segment_field(images, 0.16, settings)
    _, in_blocks = segment_field(images, 0.16, settings, chunk_above=500)
    assert in_blocks.shape == (1001, 777)
    assert (best_ious(cells, in_blocks) >= 0.98).mean() >= 0.98


def test_nuclei_of_ready_made_masks_are_found_in_blocks(field):
    given = Given(field.cells)
    settings = SegmentationSettings("masks")
    nuclei, _ = segment_field(field.images, 0.16, settings, given=given)
    in_blocks, cells = segment_field(field.images, 0.16, settings, given=given, chunk_above=400)
    np.testing.assert_array_equal(cells, field.cells)
    assert (best_ious(nuclei, in_blocks)[np.unique(nuclei)[1:] - 1] >= 0.98).mean() >= 0.98


def test_an_empty_field_in_blocks_has_no_cell():
    nothing = dict.fromkeys(("red", "yellow", "blue"), np.zeros((900, 700), np.uint8))
    nuclei, cells = segment_field(nothing, 0.16, SETTINGS, chunk_above=512)
    assert nuclei.max() == cells.max() == 0
    assert cells.shape == (900, 700)


def test_outlines_drawn_in_squares_are_those_drawn_at_once(field):
    grid = grid_of(field.cells.shape, 0.16, SETTINGS.scale)
    small = field.cells[::2, ::2].astype(np.int32)
    np.testing.assert_array_equal(as_array(grid.enlarge(small, 1.2, 333)), grid.enlarge(small, 1.2))


# Prints the peak memory in bytes, and of how many cells away from the seams how many are as in the one tile.
JOB = """
import json, resource, sys
sys.path.insert(0, {root!r})
import cv2
import numpy as np
from scipy import ndimage
from hpaloc.images import read_field
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.settings import SegmentationSettings

cv2.setNumThreads(1)
colours = ("red", "yellow", "blue")
tile = read_field({{c: {folder!r} + f"/{name}_{{c}}.png" for c in colours}}, colours)
_, alone = segment_field(tile, 0.08, SegmentationSettings())
side = alone.shape[0]
n = 12288 // side
field = {{c: np.tile(image, (n, n)) for c, image in tile.items()}}
_, cells = segment_field(field, 0.08, SegmentationSettings(), chunk_above=6144)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
area = np.bincount(cells.ravel())
same = away = 0
for cell, box in enumerate(ndimage.find_objects(alone), start=1):
    # Away from the seams: the background (60 µm) and the neighbours that a seam cuts through reach no farther.
    if min(part.start for part in box) < 250 or max(part.stop for part in box) > side - 250:
        continue
    mask = alone[box] == cell
    for top in range(0, n * side, side):
        for left in range(0, n * side, side):
            there = cells[top : top + side, left : left + side][box][mask]
            counts = np.bincount(there)
            counts[0] = 0
            shared = counts.max(initial=0)
            away += 1
            same += shared >= 0.9 * (mask.sum() + area[counts.argmax()] - shared)
print(json.dumps([peak, int(same), away]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/hpa-2021 is not there")
def test_a_huge_field_has_the_cells_of_its_tiles_within_4_gb():
    name = "f0ac7116-bb99-11e8-b2b9-ac1f6b6435d0"
    job = JOB.format(root=str(ROOT), folder=str(REAL / "images"), name=name)
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=True)
    peak, same, away = json.loads(done.stdout)
    assert peak < 4e9
    assert away > 300
    assert same >= 0.99 * away
