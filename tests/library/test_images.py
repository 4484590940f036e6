"""Every kind of channel file the microscopes and archives write is read, and anything else is refused by name."""

import gzip
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from hpaloc.classes import COLOURS
from hpaloc.images import ImageError, read_channel, read_field

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def grey():
    rng = np.random.default_rng(3)
    smooth = cv2.GaussianBlur(rng.random((48, 80)).astype(np.float32), (0, 0), 4)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def tinted(grey, channels):
    image = np.zeros((*grey.shape, 3), np.uint8)
    image[..., channels] = grey[..., None]
    return image


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tif.gz", ".ome.tif"])
def test_lossless_files_come_back_exactly(tmp_path, grey, dtype, suffix):
    image = grey.astype(dtype) * (257 if dtype == "uint16" else 1)
    path = tmp_path / f"field_red{suffix}"
    if suffix == ".png":
        cv2.imwrite(str(path), image)
    elif suffix == ".tif.gz":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, image)
        path.write_bytes(gzip.compress(buffer.getvalue()))
    else:
        tifffile.imwrite(path, image)
    read = read_channel(path, "red")
    assert read.dtype == image.dtype
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"compression": "zstd"},
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=str,
)
def test_tiff_variants(tmp_path, grey, options):
    image = grey.astype("uint16") * 200
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    np.testing.assert_array_equal(read_channel(tmp_path / "a.tif", "blue"), image)


def test_leading_axes_of_one_are_dropped_but_a_single_pixel_stays(tmp_path, grey):
    tifffile.imwrite(tmp_path / "a.tif", grey[None, None])
    assert read_channel(tmp_path / "a.tif", "green").shape == grey.shape
    cv2.imwrite(str(tmp_path / "b.png"), grey[:1, :1])
    assert read_channel(tmp_path / "b.png", "green").shape == (1, 1)


def test_grey_jpeg_and_rgb_with_equal_channels(tmp_path, grey):
    cv2.imwrite(str(tmp_path / "a.jpg"), grey, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert np.abs(read_channel(tmp_path / "a.jpg", "red").astype(int) - grey).max() < 8
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_channel(tmp_path / "b.png", "yellow"), grey)


@pytest.mark.parametrize(("colour", "channels"), [("red", [0]), ("green", [1]), ("blue", [2]), ("yellow", [0, 1])])
def test_tinted_rgb_is_recognised_and_a_wrong_tint_refused(tmp_path, grey, colour, channels):
    path = tmp_path / "tinted.jpg"
    Image.fromarray(tinted(grey, channels)).save(path, quality=95)
    assert np.abs(read_channel(path, colour).astype(int) - grey).mean() < 4
    for other in set(COLOURS) - {colour}:
        with pytest.raises(ImageError, match=f"tinted.jpg: is tinted {colour}, but was given as the {other} channel"):
            read_channel(path, other)


@pytest.mark.parametrize(("colour", "channels"), [("red", [0]), ("green", [1]), ("blue", [2]), ("yellow", [0, 1])])
@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_a_tinted_jpeg_without_staining_is_read(tmp_path, colour, channels, quality):
    path, rng = tmp_path / "dark.jpg", np.random.default_rng(1)
    for noise in (0.5, 1, 1.5, 2, 3):
        dark = np.abs(rng.normal(0, noise, (128, 160))).astype(np.uint8)
        Image.fromarray(tinted(dark, channels)).save(path, quality=quality, subsampling=0 if quality > 90 else 2)
        assert read_channel(path, colour).max() <= dark.max() + 4


def test_a_dark_image_of_another_tint_or_of_several_colours_is_refused(tmp_path):
    dark = np.random.default_rng(1).integers(0, 6, (48, 80), np.uint8)
    Image.fromarray(tinted(dark, [1])).save(tmp_path / "dark.png")
    with pytest.raises(ImageError, match="is tinted green, but was given as the red channel"):
        read_channel(tmp_path / "dark.png", "red")
    Image.fromarray(np.dstack([dark, dark[::-1] + 1, dark[:, ::-1]])).save(tmp_path / "several.png")
    with pytest.raises(ImageError, match="is an RGB image of several colours"):
        read_channel(tmp_path / "several.png", "red")


def test_public_tinted_jpeg_of_the_human_protein_atlas():
    folder = DATA / "hpa-public-jpg"
    if not folder.is_dir():
        pytest.skip("../shared/data is absent")
    images = read_field({colour: folder / f"89_B5_1_{colour}.jpg" for colour in COLOURS})
    assert {image.shape for image in images.values()} == {(1728, 1728)}
    assert all(image.mean() > 10 for image in images.values())


def test_several_colours_in_one_file_are_refused(tmp_path, grey):
    image = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    Image.fromarray(image).save(tmp_path / "rgb.png")
    with pytest.raises(ImageError, match=r"rgb\.png: is an RGB image of several colours"):
        read_channel(tmp_path / "rgb.png", "red")


def test_other_kinds_are_refused_by_name(tmp_path, grey):
    tifffile.imwrite(tmp_path / "float.tif", grey.astype("float32"))
    tifffile.imwrite(tmp_path / "signed.tif", grey.astype("int16"))
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([grey] * 7))
    Image.fromarray(grey).convert("1").save(tmp_path / "bilevel.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([grey] * 4), "CMYK").save(tmp_path / "cmyk.jpg")
    cv2.imwrite(str(tmp_path / "whole.png"), grey)
    (tmp_path / "short.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-400])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    for name in ("float.tif", "signed.tif", "stack.tif", "bilevel.png", "palette.png", "cmyk.jpg", "short.png",
                 "empty.png", "text.png", "absent.png"):  # fmt: skip
        with pytest.raises(ImageError, match=name.replace(".", r"\.")):
            read_channel(tmp_path / name, "red")


def test_channels_of_one_field_must_fit(tmp_path, grey):
    paths = {colour: tmp_path / f"f_{colour}.png" for colour in COLOURS}
    for path in paths.values():
        cv2.imwrite(str(path), grey)
    assert set(read_field(paths)) == set(COLOURS)
    cv2.imwrite(str(paths["blue"]), grey[:, :40])
    with pytest.raises(ImageError, match=r"f_blue\.png: shape \(48, 40\) differs from \(48, 80\)"):
        read_field(paths)
    cv2.imwrite(str(paths["blue"]), grey.astype("uint16"))
    with pytest.raises(ImageError, match=r"f_blue\.png: pixel type uint16 differs from uint8"):
        read_field(paths)
