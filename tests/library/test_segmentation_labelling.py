"""From probability maps to cells: hpacellseg's own regions, without its limits."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from segmented_fields import best_ious

from hpaloc.segmentation.labelling import label_maps

CASES = sorted((Path(__file__).parents[2] / "../shared/data/labelling").resolve().glob("*.npz"))


def maps(n_rows: int, n_columns: int, pitch: int = 110, radius: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Probability maps of a grid of round cells, as certain as a network is."""
    nuclei = np.zeros((n_rows * pitch, n_columns * pitch, 3), np.uint8)
    cells = nuclei.copy()
    for row in range(n_rows):
        for column in range(n_columns):
            centre = (column * pitch + pitch // 2, row * pitch + pitch // 2)
            for image, r in ((nuclei, radius * 2 // 3), (cells, radius)):
                channel = image[..., 2].copy()
                cv2.circle(channel, centre, r, 250, -1)
                image[..., 2] = channel
    return cv2.GaussianBlur(nuclei, (0, 0), 2), cv2.GaussianBlur(cells, (0, 0), 2)


@pytest.mark.skipif(not CASES, reason="../shared/data/labelling is not there")
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_regions_are_those_of_label_cell(case):
    data = np.load(case)
    nuclei, cells = label_maps(data["nuclei_pred"], data["cell_pred"])
    assert cells.max() == data["cell_label"].max()
    assert best_ious(data["cell_label"], cells).mean() > 0.99
    assert best_ious(data["nuclei_label"], nuclei).mean() > 0.99


@pytest.mark.skipif(not CASES, reason="../shared/data/labelling is not there")
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_reduced_regions_are_close(case):
    data = np.load(case)
    nuclei, cells = label_maps(data["nuclei_pred"], data["cell_pred"], reduce=4)
    assert best_ious(data["cell_label"], cells).mean() > 0.95
    assert nuclei.shape == cells.shape == data["cell_label"].shape


def test_no_cell_vanishes_beyond_255():
    # label_cell casts labels to 8 bits: its cells 256, 512 … become background.
    nuclei, cells = label_maps(*maps(18, 18))
    np.testing.assert_array_equal(np.unique(cells), np.arange(18 * 18 + 1))
    np.testing.assert_array_equal(np.unique(nuclei), np.arange(18 * 18 + 1))
    assert cells.dtype == np.uint16


@pytest.mark.parametrize("reduce", [1, 4])
def test_fields_that_are_not_square_keep_their_shape(reduce):
    nuclei, cells = label_maps(*maps(2, 5), reduce=reduce)
    assert cells.shape == nuclei.shape == (220, 550)
    assert cells.max() == 10
    for row in range(2):
        for column in range(5):
            assert cells[row * 110 + 55, column * 110 + 55] == nuclei[row * 110 + 55, column * 110 + 55] > 0


def test_areas_are_those_of_the_specimen_whatever_the_pixel():
    nuclei_map, cell_map = maps(3, 3)
    half = [cv2.resize(m, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for m in (nuclei_map, cell_map)]
    assert label_maps(*half, pixel_size=0.16)[1].max() == 9
    # Taken for 0.08 µm, the same cells are debris.
    assert label_maps(*half, pixel_size=0.08)[1].max() == 0


def test_ids_are_shared_and_nuclei_inside_their_cells():
    nuclei, cells = label_maps(*maps(3, 4))
    inside = nuclei > 0
    np.testing.assert_array_equal(nuclei[inside], cells[inside])


def test_two_certain_borders_stay_a_border():
    # The sum of two 8-bit borders passes 255; counted from zero again it would be no border at all.
    nuclei_map, cell_map = maps(1, 2, pitch=66, radius=33)
    for probabilities in (nuclei_map, cell_map):
        probabilities[:, 64:68, 1] = 200
        probabilities[:, 64:68, 2] = 120
    _, cells = label_maps(nuclei_map, cell_map, pixel_size=0.16)
    assert cells.max() == 2


def test_empty_maps_have_no_cell():
    nothing = np.zeros((64, 80, 3), np.uint8)
    nuclei, cells = label_maps(nothing, nothing)
    assert nuclei.max() == cells.max() == 0
    assert cells.shape == (64, 80)


def test_maps_of_another_kind_are_refused():
    good = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="nucleus map must be"):
        label_maps(good[..., 0], good)
    with pytest.raises(ValueError, match="cell map"):
        label_maps(good, good.astype(float))
    with pytest.raises(ValueError, match="the cell map"):
        label_maps(good, good[:4])
