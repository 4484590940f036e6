"""How the benchmark of mixtures compares fractions with known ones."""

import numpy as np
import pandas as pd
import pytest
from mixtures import compare_fractions

from hpaloc.classes import N_CLASSES


def test_mixtures_are_compared_by_field_and_location():
    fractions = np.zeros((3, N_CLASSES))
    fractions[0, [2, 7]] = 0.3, 0.6
    fractions[1, [2, 7]] = 0.5, 0.5
    fractions[2] = np.nan
    fields = pd.DataFrame(fractions, columns=[f"fraction_{index}" for index in range(N_CLASSES)])
    fields["field"] = ["f", "g", "empty"]
    known = pd.DataFrame(
        {
            "ID": ["g", "f", "empty"],
            "label_a": 2,
            "fraction_a": [0.5, 0.25, 0.4],
            "label_b": 7,
            "fraction_b": [0.5, 0.75, 0.6],
        }
    )
    table = compare_fractions(fields, known)
    assert table["found"].tolist() == [0.5, 0.5, 0.3, 0.6, 0, 0]
    assert table["pair"].unique().tolist() == ["Nucleoli + Golgi apparatus"]
    assert table["true"].tolist() == [0.5, 0.5, 0.25, 0.75, 0.4, 0.6]
    with pytest.raises(ValueError, match="field empty: is mixed"):
        compare_fractions(fields[:2], known)
