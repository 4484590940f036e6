"""Write the tables of bad inputs into docs/bad-input.md from the inputs of the tests."""

import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "bad-input.md"
# The inputs are those of the tests, so that a test checks everything on the page.
sys.path.insert(0, str(ROOT / "tests/support"))

from bad_fields import FIELDS, MASKS, Bad  # noqa: E402
from bad_settings import (  # noqa: E402
    ATLAS,
    CONFIGS,
    CROPS,
    EXAMPLES,
    IMAGES,
    MASK_TABLES,
    MIXTURES,
    MODELS,
    SHEETS,
    TRAININGS,
    TRUTH,
    WEIGHTS,
    Setting,
)

TABLES = {
    "fields": FIELDS,
    "masks": MASKS,
    "sheets": SHEETS,
    "truth": TRUTH,
    "mask tables": MASK_TABLES,
    "examples": EXAMPLES,
    "mixtures": MIXTURES,
    "configurations": CONFIGS,
    "atlas": ATLAS,
    "fields without a sheet": IMAGES,
    "tables of crops": CROPS,
    "trainings": TRAININGS,
    "models": MODELS,
    "weights": WEIGHTS,
}


def _code(text: str) -> str:
    if not text:
        return "read as intended"
    marks = "``" if "`" in text else "`"
    return f"{marks}{text}{marks}".replace("|", "\\|")


def _table(inputs: list[Bad] | list[Setting]) -> str:
    lines = ["| input | outcome | message, or what is read |", "|---|---|---|"]
    for one in inputs:
        lines.append(f"| {one.what} | {one.outcome} | {_code(one.message.replace('{id}', 'ID'))} |")
    return "\n".join(lines)


def _counts() -> str:
    counts = Counter(one.outcome for inputs in TABLES.values() for one in inputs)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("rejected", "warned", "accepted"))
    return f"{sum(counts.values())} inputs: {parts}."


def renew(page: str) -> str:
    """Return ``page`` with new text between its markers."""
    parts = {"counts": _counts(), **{name: _table(inputs) for name, inputs in TABLES.items()}}
    for name, text in parts.items():
        start, end = f"<!-- {name}: made by `make docs`; a test holds it to the tests -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"{PAGE}: has no markers of {name}")
        page = pattern.sub(lambda _, text=text, start=start, end=end: f"{start}\n\n{text}\n\n{end}", page)
    return page


if __name__ == "__main__":
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
