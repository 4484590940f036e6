"""Tiles and measurements of cells: against brute force, across bit depths, and when fields fail."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from coco_masks import decode
from PIL import Image
from scipy import ndimage
from tile_fields import make_field, tile, write_shard

from hpaloc import cutting, images, measuring, tiles
from hpaloc.classes import COLOURS
from hpaloc.grouping import DUPLICATE_BITS, near_duplicates
from hpaloc.levels import HEADROOM
from hpaloc.masks import write_mask
from hpaloc.rejection import TooManyRejected
from hpaloc.tables import CELLS, to_table
from hpaloc.tfrecord import TileRecord, read_records


def records(path):
    return [TileRecord.decode(payload) for payload in read_records(path)]


def of_field(images, cells, nuclei, **options):
    return tiles.tile_field("f", images, cells, nuclei, 0.08, **{"size": 48, **options})


def decoded(tiled, colour):
    # The framing is 12 bytes before the payload and 4 after it.
    return [TileRecord.decode(record[12:-4]) for record in tiled.records[colour]]


@pytest.mark.parametrize(
    ("shape", "corner"),
    [((3, 6), (1, 0)), ((6, 3), (0, 1)), ((4, 4), (0, 0)), ((2, 6), (2, 0)), ((1, 2), (0, 0))],
)
def test_padding_is_even_and_the_odd_pixel_goes_right_or_down(shape, corner):
    crop = np.arange(1, shape[0] * shape[1] + 1, dtype=np.uint16).reshape(shape)
    padded = cutting.square(crop)
    assert padded.shape == (max(shape),) * 2
    assert np.argwhere(padded == 1).tolist() == [list(corner)]
    assert np.count_nonzero(padded) == crop.size


def test_resizing_is_bicubic_antialiased_and_clipped():
    stripes = np.tile(np.array([0, 60000], np.uint16), (256, 128))
    small = cutting.resize(stripes, 32)
    # Without antialiasing every eighth column would be the same extreme.
    assert abs(small.astype(int) - 30000).max() < 1500
    edge = np.zeros((16, 16), np.uint8)
    edge[:, 8:] = 255
    large = cutting.resize(edge, 64)
    assert large.dtype == np.uint8
    assert large.min() == 0
    assert large.max() == 255
    assert cutting.resize(edge, 16) is edge
    bump = np.zeros((16, 16), np.uint8)
    bump[:, 8:] = 100
    # Cubic interpolation overshoots beside an edge, linear does not.
    assert cutting.resize(bump, 64).max() > 100


def light(tiled, images, colour):
    """What a tile holds of an image: the levels above the background."""
    background = round(tiled.row[f"{colour}_background"])
    return (np.maximum(images[colour], background) - background).astype(images[colour].dtype)


def test_a_tile_is_the_padded_crop():
    images, cells, nuclei = make_field(1)
    box = np.s_[60 - 27 : 60 + 28, 100 - 27 : 100 + 28]
    tiled = of_field(images, cells, nuclei, size=55)
    for colour in COLOURS:
        np.testing.assert_array_equal(decoded(tiled, colour)[1].tile, light(tiled, images, colour)[box])


def test_neighbours_are_kept_or_masked():
    images, cells, nuclei = make_field(2)
    box = np.s_[120 - 29 : 120 + 30, 45 - 29 : 45 + 30]
    inside = cells[box] == 3
    assert (cells[box] == 4).any()
    tiled = of_field(images, cells, nuclei, size=59)
    kept = decoded(tiled, "yellow")[2].tile
    masked = decoded(of_field(images, cells, nuclei, size=59, mask_neighbours=True), "yellow")[2].tile
    yellow = light(tiled, images, "yellow")[box]
    np.testing.assert_array_equal(kept, yellow)
    np.testing.assert_array_equal(masked, np.where(inside, yellow, 0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_measurements_agree_with_brute_force(dtype):
    images, cells, nuclei = make_field(3, dtype=dtype)
    tiled = of_field(images, cells, nuclei)
    assert [row["cell"] for row in tiled.cells] == [1, 2, 3, 4]
    for row in tiled.cells:
        mask = cells == row["cell"]
        nucleus = nuclei == row["cell"]
        # The edge of the field is no membrane: outside it counts as cell.
        padded = np.pad(mask, 20, mode="edge")
        depth = ndimage.distance_transform_cdt(padded, metric="chessboard")[20:-20, 20:-20]
        ring = mask & (depth <= 12) & ~nucleus
        cytoplasm = mask & ~nucleus
        y, x = np.nonzero(mask)
        assert (row["y0"], row["x0"], row["y1"], row["x1"]) == (y.min(), x.min(), y.max() + 1, x.max() + 1)
        assert row["area_px"] == mask.sum()
        assert row["nucleus_area_px"] == nucleus.sum()
        assert row["area_um2"] == pytest.approx(mask.sum() * 0.08**2)
        assert row["centroid_y"] == pytest.approx(y.mean())
        assert row["nucleus_cytoplasm_area_ratio"] == pytest.approx(nucleus.sum() / cytoplasm.sum())
        np.testing.assert_array_equal(decode(row["rle"], *cells.shape), mask)
        for colour in COLOURS:
            for name, where in (("cell", mask), ("nucleus", nucleus), ("cytoplasm", cytoplasm), ("ring", ring)):
                values = images[colour][where].astype(float)
                assert row[f"{colour}_{name}_mean"] == pytest.approx(values.mean())
                assert row[f"{colour}_{name}_std"] == pytest.approx(values.std(), abs=1e-6)
            inside = np.sort(images[colour][mask])
            assert row[f"{colour}_median"] == inside[int(np.ceil(0.5 * inside.size)) - 1]
            assert row[f"{colour}_p99"] == inside[int(np.ceil(0.99 * inside.size)) - 1]
            assert row[f"{colour}_peak"] == cv2.blur(images[colour], (3, 3))[mask].max()
    assert [row["border"] for row in tiled.cells] == [True, False, False, False]


def test_ids_may_have_gaps_and_pass_255_and_a_cell_may_lack_a_nucleus():
    images, cells, nuclei = make_field(4)
    wide = np.array([0, 7, 256, 300, 60000], np.uint32)
    cells, nuclei = wide[cells], wide[nuclei]
    nuclei[nuclei == 300] = 0
    tiled = of_field(images, cells, nuclei)
    assert [row["cell"] for row in tiled.cells] == [7, 256, 300, 60000]
    assert [record.cell for record in decoded(tiled, "blue")] == [7, 256, 300, 60000]
    assert tiled.cells[2]["nucleus_area_px"] == 0
    assert np.isnan(tiled.cells[2]["red_nucleus_mean"])
    assert tiled.row["n_cells"] == 4


def test_a_field_without_cells_gives_no_tiles():
    images, cells, nuclei = make_field(4)
    tiled = of_field(images, np.zeros_like(cells), np.zeros_like(nuclei))
    assert tiled.cells == []
    assert tiled.row["n_cells"] == 0
    assert tiled.records["green"] == []


def shown(images, cells, nuclei, colour="green"):
    """What a reader shows of the cells: tile divided by white, clipped."""
    return np.stack(
        [np.clip(r.tile / r.white, 0, 1) for r in decoded(of_field(images, cells, nuclei), colour)]
    ), of_field(images, cells, nuclei)


@pytest.mark.parametrize("depth", ["8 in 16", "12 in 16", "16"])
def test_bit_depths_come_out_alike(depth):
    images, cells, nuclei = make_field(5, dtype=np.uint16, noise=2.0)
    factor = {"8 in 16": 1 / 257, "12 in 16": 1 / 16, "16": 1.0}[depth]
    expected, _ = shown(
        {colour: np.rint(image / 257).astype(np.uint8) for colour, image in images.items()}, cells, nuclei
    )
    other = {colour: np.rint(image * factor).astype(np.uint16) for colour, image in images.items()}
    seen, tiled = shown(other, cells, nuclei)
    assert abs(seen - expected).max() < 0.03
    assert tiled.row["blue_full_scale"] == {"8 in 16": 255, "12 in 16": 4095, "16": 65535}[depth]
    reference = of_field(images, cells, nuclei)
    for row, expected_row in zip(tiled.cells, reference.cells, strict=True):
        assert row["green_signal"] == pytest.approx(expected_row["green_signal"], rel=0.1)
        assert row["focus"] == pytest.approx(expected_row["focus"], rel=0.05)


def test_a_dim_clean_field_comes_out_like_a_bright_one():
    images, cells, nuclei = make_field(6, dtype=np.uint16, noise=0.5)
    dim = {colour: (image // 4 if colour == "green" else image) for colour, image in images.items()}
    bright, _ = shown(images, cells, nuclei)
    dimmed, _ = shown(dim, cells, nuclei)
    assert bright.max() > 0.2
    assert abs(bright - dimmed).max() < 0.02


def test_noise_alone_is_not_blown_up_and_is_below_the_green_threshold():
    images, cells, nuclei = make_field(7, noise=2.0, green=0.0)
    seen, tiled = shown(images, cells, nuclei)
    assert seen.max() < 0.5
    assert seen.mean() < 0.15
    assert all(row["green_signal"] < 1 for row in tiled.cells)
    stained = of_field(*make_field(7, noise=2.0))
    assert all(row["green_signal"] > 1 for row in stained.cells)


def test_a_blank_colour_and_a_crowded_field_are_measured():
    images, cells, nuclei = make_field(8)
    images["yellow"][:] = 0
    tiled = of_field(images, np.ones_like(cells), (nuclei > 0).astype(np.uint16))
    assert tiled.row["yellow_white"] > 0
    assert np.isfinite([row["green_signal"] for row in tiled.cells]).all()


def test_saturation_and_focus_tell_bad_cells():
    images, cells, nuclei = make_field(9)
    sharp = of_field(images, cells, nuclei).cells
    burnt = {**images, "green": np.where(cells == 2, 255, images["green"]).astype(np.uint8)}
    saturation = [row["saturation"] for row in of_field(burnt, cells, nuclei).cells]
    assert saturation[1] == 1.0
    assert max(saturation[0], *saturation[2:]) < 0.01
    blurred = {**images, "red": cv2.GaussianBlur(images["red"], (0, 0), 4)}
    for clear, soft in zip(sharp, of_field(blurred, cells, nuclei).cells, strict=True):
        assert soft["focus"] < 0.7 * clear["focus"]


def blocks(shape, cells):
    """Label image with a rectangle (y0, y1, x0, x1) for each id."""
    labels = np.zeros(shape, np.uint16)
    for id, (y0, y1, x0, x1) in cells.items():
        labels[y0:y1, x0:x1] = id
    return labels


def test_cells_of_any_size_are_padded_and_resized_to_the_tile():
    shape = (700, 640)
    # One pixel wide, one pixel in all, 10 px, the tile's own size (even and odd boxes), larger than the tile.
    boxes = {
        3: (5, 45, 7, 8),
        5: (5, 6, 20, 21),
        8: (5, 15, 30, 40),
        9: (60, 316, 10, 265),
        300: (330, 690, 5, 611),
    }
    cells = blocks(shape, boxes)
    rng = np.random.default_rng(0)
    images = {colour: rng.integers(0, 256, shape, dtype=np.uint8) for colour in COLOURS}
    tiled = of_field(images, cells, np.zeros_like(cells), size=256)
    found = {record.cell: record.tile for record in decoded(tiled, "green")}
    images["green"] = light(tiled, images, "green")
    assert list(found) == list(boxes)
    assert all(tile.shape == (256, 256) and tile.dtype == np.uint8 for tile in found.values())
    green = {id: images["green"][y0:y1, x0:x1] for id, (y0, y1, x0, x1) in boxes.items()}
    # 256 x 255: the one column of padding is the last.
    np.testing.assert_array_equal(found[9][:, :255], green[9])
    assert not found[9][:, 255].any()
    # 1 x 1: nothing to interpolate.
    assert (found[5] == green[5][0, 0]).all()
    # 10 px enlarged is OpenCV's bicubic, 606 px reduced (and padded by 123 rows above and below) is Pillow's.
    np.testing.assert_array_equal(found[8], cv2.resize(green[8], (256, 256), interpolation=cv2.INTER_CUBIC))
    padded = np.pad(green[300], ((123, 123), (0, 0))).astype(np.float32)
    reduced = np.asarray(Image.fromarray(padded).resize((256, 256), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[300], np.clip(np.rint(reduced), 0, 255).astype(np.uint8))
    # 40 x 1 padded to 40 x 40: 19 columns left, 20 right of the cell.
    column = found[3].astype(int).sum(axis=0).argmax()
    assert column / 256 * 40 == pytest.approx(19.5, abs=0.5)
    for row, (y0, y1, x0, x1) in zip(tiled.cells, boxes.values(), strict=True):
        assert (row["y0"], row["y1"], row["x0"], row["x1"]) == (y0, y1, x0, x1)
        assert row["area_px"] == (y1 - y0) * (x1 - x0)
        np.testing.assert_array_equal(decode(row["rle"], *shape), cells == row["cell"])


def test_a_cell_that_fills_its_field_touches_the_border_and_has_no_ring():
    images, cells, _ = make_field(11, shape=(60, 80))
    nuclei = blocks(cells.shape, {1: (20, 40, 30, 50)})
    tiled = of_field(images, np.ones_like(cells), nuclei)
    (row,) = tiled.cells
    assert row["border"]
    assert (row["y0"], row["x0"], row["y1"], row["x1"]) == (0, 0, 60, 80)
    # The field's own edge is no membrane.
    assert np.isnan(row["green_ring_mean"])
    assert row["green_cytoplasm_mean"] == pytest.approx(images["green"][nuclei == 0].mean())
    assert tiled.row["green_background"] < tiled.row["green_white"] < 2 * images["green"].max()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_black_green_channel_is_no_signal_and_no_error(dtype):
    images, cells, nuclei = make_field(12, dtype=dtype)
    images["green"][:] = 0
    tiled = of_field(images, cells, nuclei)
    assert [row["green_signal"] for row in tiled.cells] == [0.0] * 4
    assert tiled.row["green_white"] >= 255 / 16
    assert all(not record.tile.any() for record in decoded(tiled, "green"))
    # Black over black has no ratio; the table says null.
    table = to_table(tiled.cells, CELLS)
    assert table["green_nucleus_cytoplasm_ratio"].null_count == 4


def test_a_dark_cell_is_not_lit_by_its_neighbour():
    images, cells, nuclei = make_field(14)
    # Cells 3 and 4 touch; 3 is dark, and its outline takes in five pixels of 4.
    images["green"][cells == 3] = 4
    shifted = np.roll(cells, 5, axis=1)
    taken = (cells == 4) & (shifted == 3)
    assert taken.any()
    drawn = np.where(taken, 3, cells)
    signal = {row["cell"]: row["green_signal"] for row in of_field(images, drawn, nuclei).cells}
    assert signal[3] < 1 < min(signal[1], signal[2], signal[4])
    # A protein of the membrane between two cells is not taken for the neighbour's.
    images["green"][cells == 3] = 4
    depth = ndimage.distance_transform_edt(cells == 3)
    images["green"][(depth > 0) & (depth < 13)] = 120
    signal = {row["cell"]: row["green_signal"] for row in of_field(images, cells, nuclei).cells}
    assert signal[3] > 1


def test_a_cell_between_neighbours_is_judged_by_its_median():
    shape = (40, 60)
    cells = blocks(shape, {1: (0, 40, 0, 20), 2: (0, 40, 20, 24), 3: (0, 40, 24, 60)})
    for level, lit in ((200, True), (3, False)):
        images = {colour: np.full(shape, 3, np.uint8) for colour in COLOURS}
        images["green"][cells == 2] = level
        images["green"][5:9, 23] = 200
        row = of_field(images, cells, np.zeros_like(cells)).cells[1]
        assert (row["green_signal"] > 1) == lit
        assert row["green_peak"] > 50


def test_a_black_red_channel_leaves_the_focus_unknown():
    images, cells, nuclei = make_field(12)
    images["red"][:] = 0
    assert np.isnan([row["focus"] for row in of_field(images, cells, nuclei).cells]).all()


@pytest.mark.parametrize(("pixel_size", "known"), [(0.05, True), (0.2, True), (0.44, True), (0.46, False)])
def test_focus_is_unknown_where_pixels_are_too_coarse_to_tell(pixel_size, known):
    images, cells, nuclei = make_field(15)
    rows = tiles.tile_field("f", images, cells, nuclei, pixel_size, size=48).cells
    assert len(rows) == 4
    for row in rows:
        assert row["focus"] > 0.01 if known else np.isnan(row["focus"])


def test_saturation_of_12_bits_in_16_is_told_at_4095():
    images, cells, nuclei = make_field(13, dtype=np.uint16)
    images = {colour: image // 16 for colour, image in images.items()}
    images["green"][cells == 2] = 4095
    tiled = of_field(images, cells, nuclei)
    assert tiled.row["green_full_scale"] == 4095
    assert [row["saturation"] > 0.9 for row in tiled.cells] == [False, True, False, False]


def test_colours_of_another_size_or_type_are_an_error():
    images, cells, nuclei = make_field(1)
    with pytest.raises(ValueError, match="field f: the green is"):
        of_field({**images, "green": images["green"][:-1]}, cells, nuclei)
    with pytest.raises(ValueError, match="pixel types"):
        of_field({**images, "green": images["green"].astype(np.uint16)}, cells, nuclei)


def bits(a, b):
    return (a ^ b).bit_count()


def test_perceptual_hash_survives_noise_scale_and_compression_but_not_another_field():
    image = make_field(1, shape=(400, 400), dtype=np.uint16)[0]["red"]
    small = (image // 257).astype(np.uint8)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_UNCHANGED)
    value = measuring.perceptual_hash(image)
    for same in (small, jpeg, image // 3, cv2.resize(image, (300, 300), interpolation=cv2.INTER_AREA)):
        assert bits(measuring.perceptual_hash(same), value) <= 4
    other = make_field(1, shape=(400, 400), cells=((300, 90, 60), (80, 300, 50)))[0]["red"]
    assert bits(measuring.perceptual_hash(other), value) > 12


DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
REFERENCE = ("red", "blue", "yellow")


def hashes(field_images):
    return [measuring.perceptual_hash(image) for image in field_images]


def distance(a, b):
    return sum(bits(x, y) for x, y in zip(a, b, strict=True))


def real_images(name, suffix):
    """Yield the id and the reference colours of every field of a folder of real images."""
    folder = DATA / name / "images"
    for path in sorted(folder.glob(f"*_red.{suffix}")):
        id = path.name.removesuffix(f"_red.{suffix}")
        yield id, [images.read_channel(folder / f"{id}_{colour}.{suffix}", colour) for colour in REFERENCE]


def jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


@pytest.mark.skipif(not (DATA / "hpa-2021").is_dir(), reason="the fields ../shared/data/hpa-2021 are absent")
def test_a_real_field_is_a_duplicate_of_its_copies_and_of_no_other_field():
    rng = np.random.default_rng(0)
    same = {
        "JPEG": lambda image: jpeg(image, 60),
        "poor JPEG": lambda image: jpeg(image, 20),
        "half as bright": lambda image: image // 2,
        "brighter": lambda image: cv2.add(image, 20),
        "16 bit": lambda image: image.astype(np.uint16) * 257,
        "half the size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        "noise": lambda image: np.clip(image + rng.integers(-9, 10, image.shape), 0, 255).astype(np.uint8),
        "8 px aside": lambda image: np.roll(image, 8, axis=1),
    }
    of_field = {}
    for id, channels in real_images("hpa-2021", "png"):
        of_field[id] = hashes(channels)
        for name, change in same.items():
            changed = hashes([change(image) for image in channels])
            assert len(near_duplicates(np.array([of_field[id], changed], np.uint64))) == 1, (id, name)
            assert distance(of_field[id], changed) <= 4, (id, name)
        flipped = hashes([np.ascontiguousarray(image[:, ::-1]) for image in channels])
        assert distance(of_field[id], flipped) > 2 * DUPLICATE_BITS
    assert len(of_field) == 3
    assert len(near_duplicates(np.array(list(of_field.values()), np.uint64))) == 0


@pytest.mark.skipif(not (DATA / "hpa-cells-5").is_dir(), reason="the fields ../shared/data/hpa-cells-5 are absent")
def test_real_fields_alike_in_layout_are_no_duplicates():
    table = np.array([hashes(channels) for _, channels in real_images("hpa-cells-5", "jpg")], np.uint64)
    assert len(table) == 51
    # All are 3 x 3 grids; the nearest two are still far beyond the limit.
    assert len(near_duplicates(table, max_bits=2 * DUPLICATE_BITS)) == 0


@pytest.fixture
def shard(tmp_path):
    fields = {f"f{seed}": make_field(seed, dtype=np.uint16 if seed == 2 else np.uint8) for seed in range(5)}
    return write_shard(tmp_path / "in", fields)


def test_a_shard_has_the_same_cells_in_the_same_order_everywhere(shard, tmp_path):
    rows, segmentation = shard
    cells, fields, paths = tile(rows, segmentation, tmp_path / "out")
    table = pd.read_parquet(cells)
    expected = [(f"f{seed}", cell) for seed in range(5) for cell in range(1, 5)]
    assert [*zip(table["field"], table["cell"], strict=True)] == expected
    levels = pd.read_parquet(fields).set_index("field")
    for colour, path in paths.items():
        found = records(path)
        assert [(record.field, record.cell) for record in found] == expected
        assert all(record.tile.shape == (48, 48) for record in found)
        for record in found:
            black = round(levels.at[record.field, f"{colour}_background"])
            assert record.white == pytest.approx(HEADROOM * (levels.at[record.field, f"{colour}_white"] - black))
        assert {record.field for record in found if record.tile.dtype == np.uint16} == {"f2"}


@pytest.mark.parametrize("format", ["png", "raw"])
def test_bytes_depend_on_neither_threads_nor_repetition(shard, tmp_path, format):
    rows, segmentation = shard
    first = tile(rows, segmentation, tmp_path / "one", threads=1, format=format)
    second = tile(rows, segmentation, tmp_path / "four", threads=4, format=format)
    for a, b in zip((*first[:2], *first[2].values()), (*second[:2], *second[2].values()), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_shards_without_cells_or_fields_give_empty_tables_and_files(shard, tmp_path):
    rows, segmentation = shard
    write_mask(segmentation / "f0_cellmask.png", np.zeros((160, 190), np.uint16))
    for name, some in (("no cells", rows[:1]), ("no fields", [])):
        cells, fields, paths = tile(some, segmentation, tmp_path / name)
        assert pq.read_schema(cells).equals(CELLS)
        assert len(pd.read_parquet(cells)) == 0
        assert pd.read_parquet(fields)["n_cells"].tolist() == [0] * len(some)
        assert all(path.stat().st_size == 0 for path in paths.values())


def test_every_image_is_read_once(shard, tmp_path, monkeypatch):
    rows, segmentation = shard
    read = []
    real = images.read_image
    monkeypatch.setattr(images, "read_image", lambda path, *rest: read.append(path) or real(path, *rest))
    tile(rows, segmentation, tmp_path / "out")
    assert sorted(read) == sorted(path for row in rows for path in row.paths.values())


def test_fields_that_fail_are_rejected_with_their_stage_and_reason(shard, tmp_path):
    rows, segmentation = shard
    with open(rows[3].paths["green"], "wb") as file:
        file.write(b"no image")
    table = pd.read_parquet(segmentation / "fields.parquet")
    table.loc[1, ["status", "reason", "n_cells"]] = ["rejected", "no nuclei", 0]
    table.to_parquet(segmentation / "fields.parquet")
    cells, fields, _ = tile(rows, segmentation, tmp_path / "out", max_rejected_fraction=0.4)
    found = pd.read_parquet(fields).set_index("field")
    assert found["status"].tolist() == ["ok", "rejected", "ok", "rejected", "ok"]
    assert (found.at["f1", "stage"], found.at["f1", "reason"]) == ("segment", "no nuclei")
    assert found.at["f3", "stage"] == "tile"
    assert "f3_green.png" in found.at["f3", "reason"]
    assert sorted(set(pd.read_parquet(cells)["field"])) == ["f0", "f2", "f4"]
    assert found["n_cells"].tolist() == [4, 0, 4, 0, 4]
    with pytest.raises(TooManyRejected, match=r"f3_green\.png"):
        tile(rows, segmentation, tmp_path / "strict", max_rejected_fraction=0.1)


def test_a_mask_of_another_size_is_a_reason(shard, tmp_path):
    rows, segmentation = shard
    cv2.imwrite(str(segmentation / "f0_nucleimask.png"), np.zeros((5, 5), np.uint16))
    _, fields, _ = tile(rows, segmentation, tmp_path / "out", max_rejected_fraction=0.2)
    assert "nucleus mask is (5, 5)" in pd.read_parquet(fields).at[0, "reason"]


def test_a_field_that_segmentation_does_not_know_is_an_error(shard, tmp_path):
    rows, segmentation = shard
    table = pd.read_parquet(segmentation / "fields.parquet")
    table.iloc[1:].to_parquet(segmentation / "fields.parquet")
    with pytest.raises(ValueError, match="has no row for field f0"):
        tile(rows, segmentation, tmp_path / "out")


def test_nothing_is_left_half_written(shard, tmp_path, monkeypatch):
    rows, segmentation = shard
    monkeypatch.setattr(tiles, "read_mask", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tile(rows, segmentation, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
