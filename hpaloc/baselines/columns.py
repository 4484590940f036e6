"""What the table of cells says of the shape and the green light of a cell, as baselines take it."""

import numpy as np
import pandas as pd

from hpaloc.tables import REGIONS

_LEVELS = (*(f"{region}_mean" for region in REGIONS), "median", "p99", "peak")
# Less light, as a share of white, counts as this much, and so do lower areas, ratios and signals.
_LEAST_LIGHT, _LEAST_RATIO = 1e-3, 1e-2


def describe_shape_and_light(cells: pd.DataFrame, fields: pd.DataFrame) -> np.ndarray:
    """Return 17 measurements of the shape and the green light of each cell, (n, 17) float64, nan if undefined.

    Most are logarithms: areas of cell and nucleus, the share of the nucleus, the elongation of the box; green above the
    background in units of the field's white (means of the regions, median, 99th percentile, peak); its standard
    deviations relative to the mean; its ratio of nucleus to cytoplasm; ``green_signal``.

    cells, fields: columns of CELLS and FIELDS
    """
    of_field = fields.set_index("field")
    background, white = (
        cells["field"].map(of_field[f"green_{what}"]).to_numpy(float) for what in ("background", "white")
    )
    span = white - background
    level = {name: cells[f"green_{name}"].to_numpy(float) - background for name in _LEVELS}
    mean = np.maximum(level["cell_mean"], _LEAST_LIGHT * span)
    height, width = (cells[f"{axis}1"].to_numpy(float) - cells[f"{axis}0"].to_numpy(float) for axis in "yx")
    described = [
        _logarithm(cells["area_um2"], _LEAST_RATIO),
        _logarithm(cells["nucleus_area_um2"], _LEAST_RATIO),
        cells["nucleus_fraction"].to_numpy(float),
        np.abs(np.log(height / width)),
        *(_logarithm(above / span, _LEAST_LIGHT) for above in level.values()),
        *(_logarithm(cells[f"green_{region}_std"] / mean, _LEAST_LIGHT) for region in REGIONS),
        _logarithm(cells["green_nucleus_cytoplasm_ratio"], _LEAST_RATIO),
        _logarithm(cells["green_signal"], _LEAST_RATIO),
    ]
    return np.stack(described, axis=1)


def _logarithm(values: np.ndarray | pd.Series, least: float) -> np.ndarray:
    return np.log(np.maximum(np.asarray(values, np.float64), least))
