"""Labels: what is read, what is refused, and the vectors made of them."""

import numpy as np
import pytest

from hpaloc.classes import (
    LOCATIONS,
    N_CLASSES,
    NAMES,
    NEGATIVE,
    format_labels,
    label_matrix,
    label_vector,
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
    np.testing.assert_array_equal(np.flatnonzero(label_vector((0, 16))), [0, 16])
    matrix = label_matrix([(0,), (), (3, 5)])
    assert matrix.shape == (3, 19)
    assert matrix.sum(axis=1).tolist() == [1, 0, 2]
