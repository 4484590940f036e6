"""The programs in docs/, and the pages that they make, wholly or in part, from the code and the tests."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load_program(name):
    """Return a file of docs/ as a module."""
    place = importlib.util.spec_from_file_location(Path(name).stem, DOCS / name)
    program = importlib.util.module_from_spec(place)
    place.loader.exec_module(program)
    return program


def check_page(maker):
    """Assert that a page is as its maker, a file in docs/, would write it now."""
    made = load_program(maker)
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.renew(page) == page, "run `make docs`"
