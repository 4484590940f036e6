"""Pages that a program in docs/ makes, wholly or in part, from the code and the tests."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def check_page(maker):
    """Assert that a page is as its maker, a file in docs/, would write it now."""
    place = importlib.util.spec_from_file_location(Path(maker).stem, DOCS / maker)
    made = importlib.util.module_from_spec(place)
    place.loader.exec_module(made)
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.renew(page) == page, "run `make docs`"
