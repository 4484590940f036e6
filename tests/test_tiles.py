"""Tiles and measurements of cells: against brute force, across bit depths, and when fields fail."""

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from tile_fields import make_field, tile, write_shard

from hpaloc import images, rle, tiles
from hpaloc.classes import COLOURS
from hpaloc.tables import TooManyRejected
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
    padded = tiles.square(crop)
    assert padded.shape == (max(shape),) * 2
    assert np.argwhere(padded == 1).tolist() == [list(corner)]
    assert np.count_nonzero(padded) == crop.size


def test_resizing_is_bicubic_antialiased_and_clipped():
    stripes = np.tile(np.array([0, 60000], np.uint16), (256, 128))
    small = tiles.resize(stripes, 32)
    # Without antialiasing every eighth column would be the same extreme.
    assert abs(small.astype(int) - 30000).max() < 1500
    edge = np.zeros((16, 16), np.uint8)
    edge[:, 8:] = 255
    large = tiles.resize(edge, 64)
    assert large.dtype == np.uint8
    assert large.min() == 0
    assert large.max() == 255
    assert tiles.resize(edge, 16) is edge
    bump = np.zeros((16, 16), np.uint8)
    bump[:, 8:] = 100
    # Cubic interpolation overshoots beside an edge, linear does not.
    assert tiles.resize(bump, 64).max() > 100


def test_a_tile_is_the_padded_crop():
    images, cells, nuclei = make_field(1)
    box = np.s_[60 - 27 : 60 + 28, 100 - 27 : 100 + 28]
    tiled = of_field(images, cells, nuclei, size=55)
    for colour in COLOURS:
        np.testing.assert_array_equal(decoded(tiled, colour)[1].tile, images[colour][box])


def test_neighbours_are_kept_or_masked():
    images, cells, nuclei = make_field(2)
    box = np.s_[120 - 29 : 120 + 30, 45 - 29 : 45 + 30]
    inside = cells[box] == 3
    assert (cells[box] == 4).any()
    kept = decoded(of_field(images, cells, nuclei, size=59), "yellow")[2].tile
    masked = decoded(of_field(images, cells, nuclei, size=59, mask_neighbours=True), "yellow")[2].tile
    np.testing.assert_array_equal(kept, images["yellow"][box])
    np.testing.assert_array_equal(masked, np.where(inside, images["yellow"][box], 0))


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
        np.testing.assert_array_equal(rle.decode(row["rle"], *cells.shape), mask)
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
    assert tiled.row["full_scale"] == {"8 in 16": 255, "12 in 16": 4095, "16": 65535}[depth]
    reference = of_field(images, cells, nuclei)
    for row, expected_row in zip(tiled.cells, reference.cells, strict=True):
        assert row["green_signal"] == pytest.approx(expected_row["green_signal"], rel=0.1)
        assert row["focus"] == pytest.approx(expected_row["focus"], rel=0.05)


def test_a_dim_clean_field_comes_out_like_a_bright_one():
    images, cells, nuclei = make_field(6, dtype=np.uint16, noise=0.5)
    dim = {colour: (image // 4 if colour == "green" else image) for colour, image in images.items()}
    bright, _ = shown(images, cells, nuclei)
    dimmed, _ = shown(dim, cells, nuclei)
    assert bright.max() == 1.0
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
    value = tiles.perceptual_hash(image)
    for same in (small, jpeg, image // 3, cv2.resize(image, (300, 300), interpolation=cv2.INTER_AREA)):
        assert bits(tiles.perceptual_hash(same), value) <= 4
    other = make_field(1, shape=(400, 400), cells=((300, 90, 60), (80, 300, 50)))[0]["red"]
    assert bits(tiles.perceptual_hash(other), value) > 12


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
    white = pd.read_parquet(fields).set_index("field")
    for colour, path in paths.items():
        found = records(path)
        assert [(record.field, record.cell) for record in found] == expected
        assert all(record.tile.shape == (48, 48) for record in found)
        assert all(record.white == pytest.approx(white.at[record.field, f"{colour}_white"]) for record in found)
        assert {record.field for record in found if record.tile.dtype == np.uint16} == {"f2"}
    assert (table["labels"] == "0").all()
    assert white["antibody"].tolist() == [f"HPAf{seed}" for seed in range(5)]


@pytest.mark.parametrize("format", ["png", "raw"])
def test_bytes_depend_on_neither_threads_nor_repetition(shard, tmp_path, format):
    rows, segmentation = shard
    first = tile(rows, segmentation, tmp_path / "one", threads=1, format=format)
    second = tile(rows, segmentation, tmp_path / "four", threads=4, format=format)
    for a, b in zip((*first[:2], *first[2].values()), (*second[:2], *second[2].values()), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_every_image_is_read_once(shard, tmp_path, monkeypatch):
    rows, segmentation = shard
    read = []
    real = images.read_channel
    monkeypatch.setattr(images, "read_channel", lambda path, colour: read.append(path) or real(path, colour))
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
    with pytest.raises(ValueError, match="has no row of field f0"):
        tile(rows, segmentation, tmp_path / "out")


def test_nothing_is_left_half_written(shard, tmp_path, monkeypatch):
    rows, segmentation = shard
    monkeypatch.setattr(tiles, "read_mask", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tile(rows, segmentation, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
