"""Write the table of docs/layouts.md from the layouts of the tests."""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "layouts.md"
# The layouts are those of the tests, so that a test reads everything on the page.
sys.path.insert(0, str(ROOT / "tests/support"))

from layouts import LAYOUTS, Layout  # noqa: E402

_START, _END = "<!-- layouts: made by `make docs`; a test holds it to the tests -->", "<!-- end of layouts -->"


def _row(layout: Layout) -> str:
    collection = {"sheet": "sheet.csv"} if layout.sheet else {}
    text = yaml.safe_dump({**collection, **layout.collection}, default_flow_style=True, sort_keys=False, width=1000)
    return f"| {layout.what} | `{layout.files}` | `{text.strip()[1:-1].replace('{root}', 'images')}` |"


def renew(page: str) -> str:
    """Return ``page`` with a new table between its markers."""
    lines = [f"{len(LAYOUTS)} layouts.", "", "| layout | files of a field | the collection |", "|---|---|---|"]
    table = "\n".join([_START, "", *lines, *map(_row, LAYOUTS), "", _END])
    found = re.compile(f"{re.escape(_START)}.*?{re.escape(_END)}", re.DOTALL)
    if not found.search(page):
        raise ValueError(f"{PAGE}: has no markers of the layouts")
    return found.sub(lambda _: table, page)


if __name__ == "__main__":
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
