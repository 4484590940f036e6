"""The benchmark of levels takes a field from its files to tiles by the library as it is."""

import numpy as np
import pytest
from levels import BASES, Source, Untouched, changes, seeded, segment, tile, write_field, write_tiff

from hpaloc.simulate.field import simulate_field

pytestmark = pytest.mark.network


def test_a_field_goes_from_its_files_to_the_tiles_of_its_cells(tmp_path):
    images = simulate_field("f", (0,), 1, (512, 512), pixel_size=0.16).images
    paths = write_field(tmp_path, "f", images, 0.16, write_tiff)
    nuclei, cells = segment(paths, 0.16)
    rows, tiles, boxes, _ = tile([("f", paths, 0.16, nuclei, cells)], tmp_path, 32)
    assert rows["f"]["status"] == "ok"
    assert set(tiles) == set(boxes) == {("f", cell) for cell in range(1, int(cells.max()) + 1)}
    assert {found.shape for found in tiles.values()} == {(32, 32, 4)}
    assert all(np.ptp(found) for found in tiles.values())


def test_changed_images_are_as_large_as_their_change_says():
    made = simulate_field("f", (0,), 1, (256, 320), pixel_size=0.32)
    source = Source("f", made.images, 0.32)
    untouched = {
        base: Untouched(source, make(made.images, "f"), top, made.nuclei, made.cells)
        for base, (top, make) in BASES.items()
    }
    for change in changes():
        (top, bottom), (left, right) = change.margin((256, 320))
        for image in change.make(untouched[change.base], seeded(change.name)).values():
            assert image.shape == (256 + top + bottom, 320 + left + right), change.name
    assert sum(change.margin((256, 320)) != ((0, 0), (0, 0)) for change in changes()) == 11
