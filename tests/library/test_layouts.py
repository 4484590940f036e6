"""Layouts of files: masks, tables, tiles and predictions are those of the same pixels as a PNG a colour."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from bad_input_runs import model_folder
from layouts import LAYOUTS, as_png_files, field_images, run_layout
from made_pages import check_page


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def of_pngs(tmp_path_factory, model):
    """What PNGs of the same pixels, IDs and colours give; each made once."""
    made = {}

    def run(layout):
        same = layout.dtype, tuple(layout.colours), tuple(layout.ids)
        if same not in made:
            made[same] = run_layout(as_png_files(layout), tmp_path_factory.mktemp("png") / "run", model)
        return made[same]

    return run


@pytest.mark.workers
@pytest.mark.parametrize("layout", LAYOUTS, ids=[layout.what for layout in LAYOUTS])
def test_a_layout_gives_what_four_png_files_give(tmp_path, layout, model, of_pngs):
    for module in layout.needs:
        pytest.importorskip(module)
    found, expected = run_layout(layout, tmp_path / "run", model), of_pngs(layout)
    assert found == expected
    table = pq.read_table(tmp_path / "run/made/cells.parquet", columns=["field"]).column("field").to_pylist()
    assert set(table) == set(layout.ids)


def test_the_pixels_of_the_layouts_are_not_all_alike():
    for images in field_images("uint16").values():
        assert len({image.tobytes() for image in images.values()}) == 4
        assert all(np.ptp(image) > 1000 for image in images.values())


def test_the_page_of_layouts_says_what_the_tests_hold():
    check_page("make_layouts.py")
