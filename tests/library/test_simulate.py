import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from made_pages import load_program
from scipy import ndimage
from workflow_runs import read_rows

from hpaloc.classes import COLOURS, N_CLASSES, NEGATIVE, parse_labels
from hpaloc.manifests import ManifestRow
from hpaloc.simulate.field import SimulatedField, simulate_field
from hpaloc.simulate.patterns import MITOTIC_SPINDLE
from hpaloc.simulate.shard import simulate_shard

ROOT = Path(__file__).parents[2]
PIXEL = 0.2
SHAPE = (600, 640)


@cache
def pictured(*labels: int) -> SimulatedField:
    """A field in which every cell expresses the labels."""
    return simulate_field("field", labels, 5, SHAPE, PIXEL, "A-431", silent_fraction=0.0)


def digest(field: SimulatedField) -> str:
    arrays = [*(field.images[colour] for colour in COLOURS), field.cells, field.nuclei]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays) + repr(field.truth).encode()).hexdigest()


def distance(mask: np.ndarray) -> np.ndarray:
    return ndimage.distance_transform_edt(mask) * PIXEL


def green(field: SimulatedField) -> np.ndarray:
    """Green above background, noise smoothed away a little."""
    image = field.images["green"].astype(float)
    return ndimage.gaussian_filter(image - np.median(image[field.cells == 0]), 0.7)


def shown(field: SimulatedField, label: int) -> list[int]:
    return [cell for cell, labels in field.truth if labels == (label,)]


def per_cell(field: SimulatedField, label: int, value) -> np.ndarray:
    """value(green, cell, nucleus) of each cell that shows the label alone and is not cut by the edge."""
    image = green(field)
    boxes = ndimage.find_objects(field.cells)
    values = []
    for cell in shown(field, label):
        box = boxes[cell - 1]
        if any(part.start == 0 or part.stop == size for part, size in zip(box, SHAPE, strict=True)):
            continue
        wide = tuple(slice(part.start - 1, part.stop + 1) for part in box)
        values.append(value(image[wide], field.cells[wide] == cell, field.nuclei[wide] == cell))
    assert len(values) >= 2
    return np.array(values)


def test_same_seed_same_bytes_and_no_two_fields_alike():
    arguments = {"labels": (0, 16), "shape": (200, 260), "pixel_size": 0.3}
    base = simulate_field("a", seed=1, **arguments)
    assert digest(simulate_field("a", seed=1, **arguments)) == digest(base)
    fields = [base, simulate_field("b", seed=1, **arguments), simulate_field("a", seed=2, **arguments)]
    for kind in ("cells", "nuclei"):
        assert len({getattr(field, kind).tobytes() for field in fields}) == 3
    for colour in COLOURS:
        assert len({field.images[colour].tobytes() for field in fields}) == 3


def test_bytes_do_not_depend_on_the_processor_or_on_threads():
    program = (
        "import hashlib, sys, cv2; cv2.setNumThreads(int(sys.argv[1]))\n"
        "from hpaloc.simulate.field import simulate_field\n"
        "d = hashlib.sha256()\n"
        "for label in range(0, 19, 2):\n"
        "    f = simulate_field('x', (label, label + (label < 18)), 3, (160, 200), 0.32)\n"
        "    arrays = [*(f.images[c] for c in sorted(f.images)), f.cells, f.nuclei]\n"
        "    d.update(b''.join(a.tobytes() for a in arrays))\n"
        "print(d.hexdigest())"
    )
    plain = {
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3",
        "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16,AVX",
        "OPENCV_IPP": "disabled",
    }
    digests = []
    for threads, extra in (("1", plain), ("3", {})):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, threads],
            cwd=ROOT,
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(run.stdout.strip())
    assert digests[0] == digests[1]


@pytest.mark.parametrize("line", ["U-2 OS", "A-431", "BJ", "HEK 293", None, "a line nobody listed"])
def test_ids_are_shared_and_without_gaps(line):
    field = simulate_field("f", (16,), 11, SHAPE, PIXEL, line)
    n = len(field.truth)
    assert n >= 3
    assert [cell for cell, _ in field.truth] == list(range(1, n + 1))
    for image in (field.cells, field.nuclei):
        assert image.dtype == np.uint16
        assert image.shape == SHAPE
        assert np.array_equal(np.unique(image), np.arange(n + 1))
    inside = field.nuclei > 0
    assert np.array_equal(field.nuclei[inside], field.cells[inside])
    whole = [box for box in ndimage.find_objects(field.nuclei)]
    assert all(ndimage.label(field.nuclei[box] == cell)[1] == 1 for cell, box in enumerate(whole, 1))


def test_sizes_follow_the_pixel_size_and_the_cell_line():
    def diameters(line, pixel_size):
        side = round(140 / pixel_size)
        field = simulate_field("s", (16,), 2, (side, side), pixel_size, line)
        rim = np.concatenate([field.cells[0], field.cells[-1], field.cells[:, 0], field.cells[:, -1]])
        whole = np.setdiff1d(np.arange(1, len(field.truth) + 1), rim)
        areas = (np.bincount(image.ravel())[whole] * pixel_size**2 for image in (field.cells, field.nuclei))
        return tuple(np.median(2 * np.sqrt(area / np.pi)) for area in areas)

    epithelial, spread, round_ = (diameters(line, 0.4) for line in ("A-431", "U-2 OS", "HEK 293"))
    for cell, nucleus in (epithelial, spread):
        assert 20 < cell < 34
        assert 10 < nucleus < 17
    assert round_[0] < spread[0]
    assert diameters("A-431", 0.6) == pytest.approx(epithelial, rel=0.03)


@pytest.mark.parametrize("label", range(N_CLASSES))
def test_a_field_may_hold_few_cells_or_none(label):
    counts = []
    for k in range(4):
        field = simulate_field(f"small{k}", (label,), 1, (64, 96), 0.25)
        assert np.array_equal(np.unique(field.nuclei)[1:], np.arange(1, len(field.truth) + 1))
        counts.append(len(field.truth))
    assert min(counts) < 3


def test_cells_touch_and_are_cut_by_the_edge():
    field = pictured(16)
    rim = np.concatenate([field.cells[0], field.cells[-1], field.cells[:, 0], field.cells[:, -1]])
    assert len(np.unique(rim)) > 2
    left, right = field.cells[:, :-1], field.cells[:, 1:]
    assert ((left != right) & (left > 0) & (right > 0)).sum() > 20
    assert 0.1 < (field.cells == 0).mean() < 0.9


@pytest.mark.parametrize("labels", [(4,), (0, 16), (11,), (11, 12), (18,), (7, 13, 17), (5, 18)])
def test_truth_is_among_the_field_labels_or_negative(labels):
    truth = [shown for _, shown in simulate_field("t", labels, 8, SHAPE, PIXEL).truth]
    for labels_of_cell in truth:
        assert labels_of_cell == (NEGATIVE,) or set(labels_of_cell) <= set(labels) - {NEGATIVE}
    if labels != (NEGATIVE,):
        assert any(labels_of_cell != (NEGATIVE,) for labels_of_cell in truth)


def test_share_of_cells_without_expression():
    def negative(fraction):
        fields = [simulate_field(f"n{k}", (16,), 3, (300, 320), 0.4, silent_fraction=fraction) for k in range(6)]
        truth = [labels == (NEGATIVE,) for field in fields for _, labels in field.truth]
        return np.mean(truth)

    assert negative(1.0) == 1.0
    assert 0.3 < negative(0.5) < 0.7
    assert negative(0.0) < 0.08  # dividing cells only


def test_cell_without_expression_is_dark_in_green():
    field = simulate_field("dark", (16,), 4, SHAPE, PIXEL, silent_fraction=0.5)
    image = green(field)
    means = {cell: image[(field.cells == cell) & (field.nuclei == 0)].mean() for cell, _ in field.truth}
    silent, loud = shown(field, NEGATIVE), shown(field, 16)
    assert silent
    assert loud
    assert max(means[cell] for cell in silent) < 0.5 * min(means[cell] for cell in loud)


def test_truth_of_a_cell_tells_what_it_shows_of_two_labels():
    cytoplasm: dict[tuple[int, ...], list[float]] = {}
    for k in range(4):
        field = simulate_field(f"two{k}", (0, 16), 4, SHAPE, PIXEL, "A-431")
        gain = np.percentile(green(field), 99.5)
        for cell, labels in field.truth:
            here = green(field)[(field.cells == cell) & (field.nuclei == 0)]
            cytoplasm.setdefault(labels, []).append(here.mean() / gain)
    assert set(cytoplasm) == {(0,), (16,), (0, 16), (NEGATIVE,)}
    assert max(cytoplasm[0,]) < min(cytoplasm[0, 16])
    assert len(cytoplasm[0, 16]) > len(cytoplasm[0,]) + len(cytoplasm[16,])


def test_sixteen_bit_is_the_same_picture_in_finer_steps():
    coarse = simulate_field("depth", (14,), 1, (160, 224), 0.3)
    fine = simulate_field("depth", (14,), 1, (160, 224), 0.3, dtype="uint16")
    for colour in COLOURS:
        assert coarse.images[colour].dtype == np.uint8
        assert fine.images[colour].dtype == np.uint16
        assert len(np.unique(fine.images[colour])) > 256
        assert np.abs(fine.images[colour] / 257 - coarse.images[colour]).max() <= 0.5 + 1e-3
    assert np.array_equal(coarse.cells, fine.cells)


def test_reference_colours_mark_their_compartments():
    field = pictured(18)
    cell, nucleus = field.cells > 0, field.nuclei > 0
    blue, red, yellow = (field.images[colour].astype(float) for colour in ("blue", "red", "yellow"))
    assert blue[nucleus].mean() > 8 * blue[~nucleus].mean()
    resting = cell & ~nucleus
    assert red[resting].mean() > 3 * red[nucleus].mean()
    assert yellow[resting].mean() > 3 * yellow[nucleus].mean()
    near = resting & (distance(~nucleus) < 3)
    far = resting & (distance(~nucleus) > 6)
    assert yellow[near].mean() > 1.5 * yellow[far].mean()
    assert max(red[~cell].mean(), yellow[~cell].mean()) < 6


@pytest.mark.parametrize("label", [0, 2, 3, 4, 5])
def test_nuclear_patterns_shine_in_the_nucleus(label):
    def brightest_inside(image, cell, nucleus):
        bright = cell & (image > 0.5 * np.percentile(image[cell], 99.8))
        return (bright & nucleus).sum() / bright.sum()

    assert per_cell(pictured(label), label, brightest_inside).min() > 0.9


def test_nucleoli_lie_in_the_holes_of_the_chromatin_and_nucleoplasm_does_not():
    def blue_under_green(label):
        field = pictured(label)
        blue = field.images["blue"].astype(float)
        nuclei = [field.nuclei == cell for cell in shown(field, label)]
        return np.median([np.corrcoef(green(field)[nucleus], blue[nucleus])[0, 1] for nucleus in nuclei])

    assert blue_under_green(2) < -0.2
    assert blue_under_green(3) < -0.1
    assert blue_under_green(0) > 0.2


def test_nuclear_dots_differ_in_number_and_size():
    def dots(image, cell, nucleus):
        return ndimage.label(nucleus & (image > 0.5 * image[nucleus].max()))[1]

    def area(image, cell, nucleus):
        return (nucleus & (image > 0.5 * image[nucleus].max())).sum() / nucleus.sum()

    assert np.median(per_cell(pictured(4), 4, dots)) > 1.3 * np.median(per_cell(pictured(2), 2, dots))
    assert np.median(per_cell(pictured(2), 2, area)) > 2 * np.median(per_cell(pictured(3), 3, area))
    assert np.median(per_cell(pictured(4), 4, area)) > np.median(per_cell(pictured(5), 5, area))


def test_nuclear_membrane_is_a_ring():
    def contrast(image, cell, nucleus):
        inward, outward = distance(nucleus), distance(~nucleus)
        ring = (np.where(nucleus, inward, outward) < 0.4).nonzero()
        return image[ring].mean() / max(image[inward > 1.5].mean(), image[cell & (outward > 1.5)].mean())

    assert per_cell(pictured(1), 1, contrast).min() > 2


def test_plasma_membrane_lines_the_cell():
    def contrast(image, cell, nucleus):
        inward = distance(cell)
        return image[cell & (inward < 0.7)].mean() / image[inward > 3].mean()

    assert np.median(per_cell(pictured(13), 13, contrast)) > 2.5
    assert np.median(per_cell(pictured(16), 16, contrast)) < 1.2


@pytest.mark.parametrize("label", [6, 7, 8, 10, 14, 16, 17])
def test_cytoplasmic_patterns_shine_outside_the_nucleus(label):
    def ratio(image, cell, nucleus):
        return image[cell & ~nucleus].mean() / image[nucleus].mean()

    assert np.median(per_cell(pictured(label), label, ratio)) > 1.5


def test_patterns_that_follow_a_reference_colour():
    def correlation(label, colour):
        field = pictured(label)
        cells = np.isin(field.cells, shown(field, label))
        return np.corrcoef(
            green(field)[cells], ndimage.gaussian_filter(field.images[colour].astype(float), 0.7)[cells]
        )[0, 1]

    assert correlation(10, "red") > 0.85
    assert correlation(8, "red") < 0.75
    assert correlation(6, "yellow") > 0.6
    assert correlation(6, "yellow") > correlation(16, "yellow") + 0.1


def test_cytosol_is_smoother_than_reticulum():
    def roughness(image, cell, nucleus):
        body = cell & ~nucleus & (distance(cell) > 2)
        return (image - ndimage.gaussian_filter(image, 4))[body].std() / image[body].mean()

    assert np.median(per_cell(pictured(6), 6, roughness)) > 2 * np.median(per_cell(pictured(16), 16, roughness))


def test_actin_fibres_run_in_parallel_and_microtubules_do_not():
    def coherence(image, cell, nucleus):
        body = cell & (distance(cell) > 2)
        dy, dx = (ndimage.gaussian_filter(image, 1.0, order) for order in ((1, 0), (0, 1)))
        yy, xx, xy = (dy * dy)[body].sum(), (dx * dx)[body].sum(), (dx * dy)[body].sum()
        return np.hypot(yy - xx, 2 * xy) / (yy + xx)

    assert np.median(per_cell(pictured(9), 9, coherence)) > 0.6
    assert np.median(per_cell(pictured(10), 10, coherence)) < 0.4


def test_intermediate_filaments_stay_near_the_nucleus():
    def reach(image, cell, nucleus):
        outward = distance(~nucleus)
        weight = np.clip(image, 0, None) * (cell & ~nucleus)
        return (weight * outward).sum() / weight.sum() / outward[cell & ~nucleus].mean()

    assert np.median(per_cell(pictured(8), 8, reach)) < 0.75 * np.median(per_cell(pictured(10), 10, reach))


def test_golgi_aggresome_and_centrosome_are_compact_beside_the_nucleus():
    def bright(image, cell):
        return cell & (image > 0.4 * np.percentile(image[cell], 99.9))

    def area(image, cell, nucleus):
        return bright(image, cell).sum() * PIXEL**2

    def spread(image, cell, nucleus):
        y, x = bright(image, cell).nonzero()
        return np.sqrt(y.var() + x.var()) * PIXEL

    def gap(image, cell, nucleus):
        return np.median(distance(~nucleus)[bright(image, cell)])

    areas = {label: per_cell(pictured(label), label, area) for label in (7, 12, 15)}
    assert areas[12].max() < 4
    assert 4 < np.median(areas[15]) < 30
    assert areas[7].min() > 4
    for label in (7, 12, 15):
        assert per_cell(pictured(label), label, gap).max() < 6
        assert np.median(per_cell(pictured(label), label, spread)) < 3.5
    assert np.median(per_cell(pictured(17), 17, spread)) > 5


def test_vesicles_are_many_dots_and_mitochondria_fill_more():
    def dots(image, cell, nucleus):
        return ndimage.label(cell & (image > 0.4 * np.percentile(image[cell], 99.5)))[1]

    assert per_cell(pictured(17), 17, dots).min() > 10
    assert np.median(per_cell(pictured(15), 15, dots)) <= 3


def test_negative_field_is_near_background():
    field = pictured(18)
    assert {labels for _, labels in field.truth} == {(NEGATIVE,)}
    assert np.percentile(green(field), 99.9) < 0.25 * np.percentile(green(pictured(16)), 99.9)


def test_spindle_shows_in_dividing_cells_alone():
    field = simulate_field("mitosis", (MITOTIC_SPINDLE,), 6, SHAPE, PIXEL, silent_fraction=0.0, mitotic_fraction=0.5)
    dividing, resting = shown(field, MITOTIC_SPINDLE), shown(field, NEGATIVE)
    assert len(dividing) >= 3
    assert len(resting) >= 3
    area = np.bincount(field.nuclei.ravel())
    assert np.median(area[dividing]) < 0.4 * np.median(area[resting])
    image, red = green(field), field.images["red"].astype(float)
    for cell in dividing:
        here = field.cells == cell
        assert image[here].max() > 3 * max(image[field.cells == other].max() for other in resting)
        assert np.corrcoef(image[here], red[here])[0, 1] > 0.7
    none = simulate_field("mitosis", (MITOTIC_SPINDLE,), 6, SHAPE, PIXEL, mitotic_fraction=0.0)
    assert not shown(none, MITOTIC_SPINDLE)


def test_pattern_outside_the_picture_is_no_truth():
    image_rims = []
    for k in range(8):
        field = simulate_field(f"cut{k}", (12,), 9, (250, 250), PIXEL, silent_fraction=0.0)
        image = green(field)
        for cell, labels in field.truth:
            if labels == (12,):
                here = image[field.cells == cell]
                image_rims.append(here.max() / np.median(here))
    assert min(image_rims) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ()}, "labels"),
        ({"labels": (19,)}, "labels"),
        ({"dtype": "float32"}, "dtype"),
        ({"shape": (20, 300)}, "shape"),
        ({"pixel_size": 0.0}, "pixel_size"),
        ({"silent_fraction": 1.5}, "silent_fraction"),
        ({"mitotic_fraction": -0.1}, "mitotic_fraction"),
        ({"density": 0.0}, "density"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"field wrong.*{message}"):
        simulate_field("wrong", **{"labels": (0,), "seed": 1, **arguments})


def rows_of(*labels: tuple[int, ...] | None) -> list[ManifestRow]:
    return [ManifestRow(f"f{k}", of_row, 0.3, cell_line="BJ", seed=4) for k, of_row in enumerate(labels)]


def test_shard_writes_pictures_masks_and_truth(tmp_path):
    rows = rows_of((0, 16), (18,), (13,))
    simulate_shard(rows, tmp_path / "one", (160, 200))
    simulate_shard(rows, tmp_path / "two", (160, 200), threads=3)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    kinds = (*COLOURS, "cellmask", "nucleimask")
    assert names == sorted(["cells.csv", *(f"{row.id}_{kind}.png" for row in rows for kind in kinds)])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    field = simulate_field("f0", (0, 16), 4, (160, 200), 0.3, "BJ")
    for kind, expected in [*field.images.items(), ("cellmask", field.cells), ("nucleimask", field.nuclei)]:
        image = cv2.imread(str(tmp_path / "one" / f"f0_{kind}.png"), cv2.IMREAD_UNCHANGED)
        assert image.dtype == expected.dtype
        assert np.array_equal(image, expected)
    truth = [row for row in read_rows(tmp_path / "one" / "cells.csv") if row["ID"] == "f0"]
    assert [(int(row["cell"]), parse_labels(row["Label"])) for row in truth] == field.truth


def test_shard_names_the_row_that_cannot_be_simulated(tmp_path):
    with pytest.raises(ValueError, match=r"f1.*labels and a seed"):
        simulate_shard(rows_of((0,), None), tmp_path, (64, 64))


# The most frequent pairs of the 2021 train.csv.
PAIRS = {"0|16", "0|2", "0|13", "13|16", "0|7", "0|12"}


def read_demo(part: str) -> list[dict[str, str]]:
    return read_rows(ROOT / "config" / "demo" / f"{part}.csv")


def test_committed_demo_sheets_are_the_ones_that_the_program_makes():
    sheets = load_program("make_demo_sheets.py")
    for part in ("train", "test"):
        assert (sheets.FOLDER / f"{part}.csv").read_text() == sheets.demo_sheet(part)


def test_demo_sheets_cover_every_class_by_several_antibodies():
    train, test = read_demo("train"), read_demo("test")
    assert not {row["antibody"] for row in train} & {row["antibody"] for row in test}
    assert not {row["ID"] for row in train} & {row["ID"] for row in test}
    for label in range(N_CLASSES):
        fields = [row for row in train if row["Label"] == str(label)]
        assert len(fields) >= 4
        assert len({row["antibody"] for row in fields}) == len(fields)
        assert len({row["cell_line"] for row in fields}) >= 2
        assert sum(row["Label"] == str(label) for row in test) >= 2
    for part in (train, test):
        assert {row["Label"] for row in part if "|" in row["Label"]} == PAIRS
        assert 0.1 < np.mean(["|" in row["Label"] for row in part]) < 0.2


def test_an_id_that_makes_no_file_name_gets_neither_files_nor_truth(tmp_path, caplog):
    # Its channels can be written, and the masks of its nuclei cannot.
    rows = [ManifestRow(id, (0,), 0.16, seed=1) for id in ("x" * 242, "a")]
    simulate_shard(rows, tmp_path, shape=(64, 64))
    suffixes = (*COLOURS, "cellmask", "nucleimask")
    assert {path.name for path in tmp_path.iterdir()} == {"cells.csv", *(f"a_{suffix}.png" for suffix in suffixes)}
    assert set(pd.read_csv(tmp_path / "cells.csv")["ID"]) == {"a"}
    assert "x_nucleimask.png: the file system does not accept this file name (File name too long)" in caplog.text
