"""The backend ``masks``: cells, and nuclei if there are any, that were segmented elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass

import cc3d
import fastremap
import numpy as np

from hpaloc.masks import MaskError, draw, read_mask, share_ids
from hpaloc.pixels.strips import as_array
from hpaloc.rle import MAX_PIXELS, RunLengths, is_table
from hpaloc.segmentation import watershed

# A cell may be in two pieces, cut by a neighbour or the edge of the field, and a nucleus may reach into a second cell.
_PIECES = 2


@dataclass(frozen=True)
class Given:
    """Masks from elsewhere: cells, and nuclei or None, each an (H, W) label image of any unsigned type."""

    cells: np.ndarray
    nuclei: np.ndarray | None = None


def read_given(
    field: str,
    cell_mask: str,
    nucleus_mask: str | None,
    tables: Mapping[str, RunLengths | str | None],
    max_pixels: int = MAX_PIXELS,
) -> Given:
    """Read the masks of one field from elsewhere.

    cell_mask, nucleus_mask: an image, or a table whose entry for this field is in ``tables``
    tables: {path of a table: its entry for this field from ``mask_tables.read_rle_table``, None if it has none}
    max_pixels: an image with more is not unpacked
    Raises MaskError naming file and field.
    """

    def one(path: str) -> np.ndarray:
        if not is_table(path):
            return read_mask(path, max_pixels)
        entry = tables.get(path)
        if entry is None:
            raise MaskError(f"{path}: the table has no row for field {field}")
        if isinstance(entry, str):
            raise MaskError(f"{path}: {entry}")
        height, width, masks = entry
        try:
            return draw(masks, height, width)
        except ValueError as error:
            raise MaskError(f"{path}: {error}") from None

    return Given(one(cell_mask), one(nucleus_mask) if nucleus_mask else None)


def _has_one_id(mask: np.ndarray) -> bool:
    return np.count_nonzero(fastremap.unique(mask)) == 1


def segment(
    blue: np.ndarray, pixel_size: float, scale: float, given: Given, *, chunk_above: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Use the given cells, with the given nuclei or with nuclei found in the blue channel.

    Cells keep their order; ids that are 1 … n already stay the same.

    blue: (H, W) uint8 or uint16
    pixel_size: µm
    scale, chunk_above: as in ``watershed.segment``
    Returns (nuclei, cells) as ``segment_field`` does.
    Raises ValueError if a mask has another size than the field, or is binary.
    """
    for name, mask in (("cell", given.cells), ("nucleus", given.nuclei)):
        if mask is not None and mask.shape != blue.shape:
            raise ValueError(f"the {name} mask is {mask.shape}, but the field is {blue.shape}")
    if _has_one_id(given.cells):
        pieces = int(cc3d.connected_components(given.cells, connectivity=8).max())
        if pieces > _PIECES:
            raise ValueError(f"the cell mask is binary (one id in {pieces} pieces); give each cell its own id")
    nuclei = given.nuclei
    # Several nuclei of one cell may share an id; if nuclei of several cells did, all but one cell would lose theirs.
    if nuclei is not None and _has_one_id(nuclei):
        cells = fastremap.unique(given.cells[nuclei != 0])
        if np.count_nonzero(cells) > _PIECES:
            raise ValueError(
                f"the nucleus mask is binary (one id in {np.count_nonzero(cells)} cells); give each nucleus its own id"
            )
    if nuclei is None:
        nuclei = as_array(watershed.find_nuclei(blue, pixel_size, scale, chunk_above=chunk_above))
    shared = share_ids(nuclei, given.cells)
    return as_array(shared[0]), as_array(shared[1])
