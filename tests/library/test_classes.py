"""Labels: what is read, what is refused, and the vectors made of them."""

import numpy as np
import pytest
from skimage.color import xyz2lab

from hpaloc.classes import (
    LOCATIONS,
    N_CLASSES,
    NAMES,
    NEGATIVE,
    format_labels,
    label_matrix,
    parse_labels,
)


def test_the_nineteen_locations_in_the_competitions_order():
    assert N_CLASSES == 19
    assert [location.index for location in LOCATIONS] == list(range(19))
    assert (NAMES[0], NAMES[11], NAMES[16], NAMES[NEGATIVE]) == (
        "Nucleoplasm",
        "Mitotic spindle",
        "Cytosol",
        "Negative",
    )
    assert len({location.colour for location in LOCATIONS}) == 19


@pytest.mark.parametrize(("text", "labels"), [("8|5|0", (0, 5, 8)), ("13|13", (13,)), (" 4 ", (4,)), ("18|0", (0, 18))])
def test_label_strings_are_sets(text, labels):
    assert parse_labels(text) == labels
    assert parse_labels(format_labels(labels)) == labels


@pytest.mark.parametrize("text", ["", "19", "-1", "1.0", "1||2", "a", "nan", "1,2", "²"])
def test_unknown_labels_are_refused(text):
    with pytest.raises(ValueError, match="label"):
        parse_labels(text)


def test_vectors():
    matrix = label_matrix([(0,), (), (3, 5)])
    assert matrix.shape == (3, 19)
    assert matrix.sum(axis=1).tolist() == [1, 0, 2]


# What eyes without the cones for green and for red see of linear RGB (Machado, Oliveira and Fernandes 2009).
WITHOUT = {
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "none": np.eye(3),
}


@pytest.mark.parametrize(("cones", "apart"), [("none", 20), ("green", 9), ("red", 9)])
def test_locations_are_told_apart_with_any_colour_vision(cones, apart):
    srgb = np.array([[int(location.colour[at : at + 2], 16) for at in (1, 3, 5)] for location in LOCATIONS]) / 255
    seen = (
        np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92) @ np.transpose(WITHOUT[cones])
    ).clip(0, 1)
    lab = xyz2lab(seen @ np.transpose([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]))
    far = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1000 * np.eye(len(lab))
    nearest = divmod(int(far.argmin()), len(lab))
    assert far.min() > apart, [LOCATIONS[index].name for index in nearest]
