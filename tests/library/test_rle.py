"""The mask codec: byte for byte what pycocotools and Kaggle write, and back."""

import numpy as np
import pytest
from coco_masks import decode, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hpaloc import rle
from hpaloc.masks import draw

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(hnp.arrays(bool, SHAPES))
@settings(max_examples=60, deadline=None)
def test_masks_come_back(mask):
    counts = encode(mask)
    assert rle.encode_labels(mask.view(np.uint8)) == ({1: counts} if mask.any() else {})
    np.testing.assert_array_equal(draw({1: counts}, *mask.shape), mask)
    assert rle.run_lengths(counts)[1::2].sum() == mask.sum()
    assert rle.from_kaggle(rle.to_kaggle(counts)) == counts


@given(hnp.arrays(np.uint16, SHAPES, elements=st.integers(0, 4)))
@settings(max_examples=60, deadline=None)
def test_label_images_are_encoded_as_their_masks(labels):
    ids = [int(i) for i in np.unique(labels) if i]
    assert rle.encode_labels(labels) == {i: encode(labels == i) for i in ids}
    assert list(rle.encode_labels(labels)) == ids


def test_ids_beyond_16_bits_are_kept():
    labels = np.zeros((7, 300), np.uint32)
    labels[2:4, 10:200] = 70_001
    labels[5:, 290:] = 1
    assert list(rle.encode_labels(labels)) == [1, 70_001]


@pytest.mark.parametrize(
    ("size", "text"),
    [(2048, "eNoLCAgIMAEABJkBdQ=="), (1728, "eNoLCAjJNgIABNkBkg=="), (3072, "eNoLCAgIsAQABJ4Beg==")],
)
def test_empty_masks_of_the_sample_submission(size, text):
    empty = np.zeros((size, size), bool)
    assert rle.to_kaggle(encode(empty)) == text
    np.testing.assert_array_equal(rle.run_lengths(rle.from_kaggle(text)), [size * size])
    assert not decode(rle.from_kaggle(text), size, size).any()


def test_a_mask_of_another_size_is_refused():
    counts = encode(np.eye(12, dtype=bool))
    with pytest.raises(ValueError, match=r"covers 144 pixels.*12 x 13"):
        draw({1: counts}, 12, 13)


@pytest.mark.parametrize("text", ["", "P", "é", "~~", "1"])
def test_broken_strings_are_refused(text):
    with pytest.raises(ValueError, match=r"COCO|cover"):
        draw({1: text}, 3, 3)


@pytest.mark.parametrize("text", ["no base64!", "aGVsbG8="])
def test_broken_kaggle_masks_are_refused(text):
    with pytest.raises(ValueError, match="not a zlib"):
        rle.from_kaggle(text)


@pytest.mark.parametrize("shape", [(0, 3), (3, 3, 3)])
def test_a_label_image_has_two_dimensions(shape):
    with pytest.raises(ValueError, match="two dimensions"):
        rle.encode_labels(np.zeros(shape, int))
