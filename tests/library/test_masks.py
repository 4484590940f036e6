"""Mask files and shared ids."""

import zlib

import cv2
import numpy as np
import pytest
import tifffile
from bad_fields import MASKS, SHAPE, chunk, png_of

from hpaloc import masks, rle
from hpaloc.files import FileNameError


def blocks(n_rows: int, n_columns: int, side: int = 5) -> np.ndarray:
    ids = np.arange(1, n_rows * n_columns + 1, dtype=np.uint32).reshape(n_rows, n_columns)
    return np.kron(ids, np.pad(np.ones((side - 2, side - 2), np.uint32), 1))


def test_a_mask_comes_back_as_16_bit_png(tmp_path):
    labels = blocks(20, 15)
    path = masks.write_mask(tmp_path / "a_cellmask.png", labels)
    assert path == masks.mask_path(tmp_path, "a", "cell")
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    back = masks.read_mask(path)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, labels)


def test_above_65535_ids_a_mask_is_a_32_bit_tiff(tmp_path):
    labels = np.arange(70_000, dtype=np.uint32).reshape(200, 350)
    stale = masks.write_mask(tmp_path / "b_nucleimask.png", np.ones((4, 4), np.uint16))
    path = masks.write_mask(tmp_path / "b_nucleimask.png", labels)
    assert path.name == "b_nucleimask.tif"
    assert not stale.exists()
    assert masks.mask_path(tmp_path, "b", "nucleus") == path
    back = masks.read_mask(path)
    assert back.dtype == np.uint32
    np.testing.assert_array_equal(back, labels)


def test_masks_of_other_people_are_read(tmp_path):
    labels = blocks(3, 4)
    cv2.imwrite(str(tmp_path / "x.png"), labels.astype(np.uint8))
    tifffile.imwrite(tmp_path / "x.tiff", labels.astype(np.int64))
    (tmp_path / "named.png").write_bytes((tmp_path / "x.tiff").read_bytes())
    for name in ("x.png", "x.tiff", "named.png"):
        np.testing.assert_array_equal(masks.read_mask(tmp_path / name), labels)
        assert masks.read_mask(tmp_path / name).dtype == np.uint16


def test_bad_mask_files_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "broken.tif").write_bytes(b"no image")
    (tmp_path / "empty.png").touch()
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((4, 4, 3), np.uint8))
    tifffile.imwrite(tmp_path / "float.tif", np.full((4, 4), 0.5, np.float32))
    tifffile.imwrite(tmp_path / "negative.tif", np.full((4, 4), -1, np.int16))
    # A header that claims 40,000 x 40,000 px.
    width = height = (40_000).to_bytes(4, "big")
    good = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    header = b"IHDR" + width + height + good[24:29]
    (tmp_path / "huge.png").write_bytes(good[:12] + header + zlib.crc32(header).to_bytes(4, "big") + good[33:])
    # A JPEG gives back other ids than were written.
    cv2.imwrite(str(tmp_path / "lossy.jpg"), blocks(15, 16).astype(np.uint8))
    names = ("broken.png", "broken.tif", "empty.png", "colour.png", "float.tif", "negative.tif", "absent.png")
    names = (*names, "huge.png", "lossy.jpg")
    for name in names:
        with pytest.raises(masks.MaskError, match=name):
            masks.read_mask(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(masks.MaskError, match=r"folder\.png: cannot be read \(Is a directory\)"):
        masks.read_mask(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match=r"nothing_cellmask\.png"):
        masks.mask_path(tmp_path, "nothing", "cell")


def test_compact_keeps_the_order_of_ids():
    labels = np.array([[9, 0, 700_000], [9, 3, 0]], np.uint32)
    np.testing.assert_array_equal(masks.compact(labels), [[2, 0, 3], [2, 1, 0]])
    assert masks.compact(labels).dtype == np.uint16
    contiguous = blocks(4, 4)
    np.testing.assert_array_equal(masks.compact(contiguous), contiguous)
    assert masks.compact(np.zeros((3, 3), np.uint8)).max() == 0


def test_a_nucleus_takes_the_id_of_the_cell_that_holds_most_of_it():
    cells = np.zeros((6, 12), np.uint16)
    cells[:, :6], cells[:, 6:10] = 40, 7
    nuclei = np.zeros_like(cells)
    nuclei[1:3, 3:8] = 1  # straddles: 3 columns in cell 40, 2 in cell 7
    nuclei[4, 8] = 2
    nuclei[2, 10:] = 3  # outside every cell
    shared, numbered = masks.share_ids(nuclei, cells)
    assert set(np.unique(numbered)) == {0, 1, 2}
    assert (numbered[cells == 7] == 1).all()
    expected = np.zeros_like(cells)
    expected[1:3, 3:6], expected[4, 8] = 2, 1
    np.testing.assert_array_equal(shared, expected)
    with pytest.raises(ValueError, match="nucleus mask"):
        masks.share_ids(nuclei[:3], cells)


def test_share_ids_of_an_empty_field():
    nothing = np.zeros((5, 5), np.uint8)
    nuclei, cells = masks.share_ids(nothing, nothing)
    assert nuclei.max() == cells.max() == 0
    assert cells.dtype == np.uint16


def test_draw_undoes_encode_labels():
    labels = blocks(7, 5)
    np.testing.assert_array_equal(masks.draw(rle.encode_labels(labels), *labels.shape), labels)
    with pytest.raises(ValueError, match="mask 1 covers"):
        masks.draw(rle.encode_labels(labels), 3, 3)


def test_a_tiff_mask_opens_no_other_file_and_is_not_unpacked_where_it_is_too_large(tmp_path):
    elsewhere = tmp_path / "elsewhere.tif"
    tifffile.imwrite(elsewhere, blocks(3, 4))
    naming = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
      <Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="4" SizeY="3" SizeC="1" SizeZ="1" SizeT="1">
      <TiffData IFD="0" PlaneCount="1"><UUID FileName="elsewhere.tif">urn:uuid:1</UUID></TiffData>
      </Pixels></Image></OME>"""
    mask = tmp_path / "mask.tif"
    tifffile.imwrite(mask, np.zeros((3, 4), np.uint16), description=naming.encode(), metadata=None)
    assert masks.read_mask(mask).max() == 0
    with pytest.raises(masks.MaskError, match=r"mask\.tif: 3 x 4 px does not fit in the memory of the job"):
        masks.read_mask(mask, max_pixels=11)


def ids_to_64() -> np.ndarray:
    """Return a label image of 48 cells in a field of the bad masks' size."""
    labels = blocks(6, 8, side=40)
    return np.pad(labels, ((0, SHAPE[0] - labels.shape[0]), (0, SHAPE[1] - labels.shape[1]))).astype(np.uint16)


@pytest.mark.parametrize(
    "bad",
    [bad for bad in MASKS if bad.outcome == "accepted" and "able" not in bad.what.replace("Palette", "")],
    ids=lambda bad: bad.id,
)
def test_an_accepted_mask_is_read_as_it_was(bad, tmp_path):
    # Four bits hold ids to 15.
    given = ids_to_64() % 16 if "4" in bad.what else ids_to_64()
    read = masks.read_mask(bad.make(tmp_path, bad.id, given))
    assert read.dtype == (np.uint32 if "65,535" in bad.what else np.uint16)
    np.testing.assert_array_equal(masks.compact(read), masks.compact(given))
    if "gaps" not in bad.what and "65,535" not in bad.what:
        np.testing.assert_array_equal(read, given)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_png_of_few_bits_keeps_its_ids(tmp_path, bits, mode):
    labels = np.arange(17 * 23).reshape(17, 23) % 2**bits
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:]).tobytes()
                    for row in labels.astype(np.uint8))  # fmt: skip
    colours = [chunk(b"PLTE", bytes(3 * 2**bits))] if mode == "P" else []
    (tmp_path / "a.png").write_bytes(png_of(23, 17, bits, 3 if mode == "P" else 0, rows, *colours))
    np.testing.assert_array_equal(masks.read_mask(tmp_path / "a.png"), labels)


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("packed", [None, "deflate", "zstd"])
def test_lerc_is_read_by_its_tolerance(tmp_path, version, packed):
    labels = ids_to_64()
    for level, exact in ((None, True), (0.5, True), (1, False)):
        options = {"version": version, "compression": packed, **({} if level is None else {"level": level})}
        tifffile.imwrite(tmp_path / "a.tif", labels, tile=(64, 64), compression="lerc", compressionargs=options)
        if exact:
            np.testing.assert_array_equal(masks.read_mask(tmp_path / "a.tif"), labels)
        else:
            with pytest.raises(masks.MaskError, match="LERC with a tolerance, may change ids"):
                masks.read_mask(tmp_path / "a.tif")
    # Of floating-point numbers half of one is a tolerance.
    tifffile.imwrite(tmp_path / "f.tif", labels.astype(np.float32), compression="lerc", compressionargs={"level": 0.5})
    with pytest.raises(masks.MaskError, match="LERC with a tolerance"):
        masks.read_mask(tmp_path / "f.tif")


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_whole_numbers_are_ids_as_far_as_their_type_is_exact(tmp_path, kind):
    most = {"float16": 2**11, "float32": 2**24, "float64": 2**32 - 1}[kind]
    sentence = "does not fit in 32 bits" if kind == "float64" else f"is not exact as {kind}; save"
    for top, read in ((most, True), (most * 2, False)):
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 1], [2, top]], kind), byteorder=">")
        if read:
            np.testing.assert_array_equal(masks.read_mask(tmp_path / "a.tif"), [[0, 1], [2, top]])
        else:
            with pytest.raises(masks.MaskError, match=f"id {top} {sentence}"):
                masks.read_mask(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 1], [2, np.inf]], kind))
    with pytest.raises(masks.MaskError, match="inf is not an id"):
        masks.read_mask(tmp_path / "a.tif")


def test_both_masks_of_a_field_are_written_or_none(tmp_path):
    labels = blocks(2, 2)
    for top in (0, 70_000):
        # The name of the cells' mask has 255 bytes, that of the nuclei 257.
        with pytest.raises(
            FileNameError, match=r"b_nucleimask\.(png|tif): the file system does not accept this file name"
        ):
            masks.write_masks(tmp_path, "b" * 242, np.where(labels, labels + top, 0), np.where(labels, labels + top, 0))
        assert list(tmp_path.iterdir()) == []
