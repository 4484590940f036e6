"""Write the table of all configuration keys into config/README.md from the schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpaloc.config import load_schema

PAGE = Path(__file__).resolve().parents[1] / "config" / "README.md"
START = "<!-- table: made by `make docs`; a test holds it to the schema -->\n"
END = "<!-- end of table -->\n"


def _values(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in schema["enum"])
    if "oneOf" in schema:
        return " or ".join(_values(part) for part in schema["oneOf"])
    kinds = schema.get("type", "any")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    text = " or ".join(kinds)
    if "array" in kinds and "items" in schema:
        text += f" of {_values(schema['items'])}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return f"{text} {', '.join(bounds)}".strip()


def _rows(schema: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, of_key in schema.get("properties", {}).items():
        name = f"{above}{key}"
        others = of_key.get("additionalProperties")
        if "properties" in of_key or isinstance(others, dict):
            yield f"| `{name}` | | | {of_key['description']} |"
            yield from _rows(of_key, f"{name}.")
            if isinstance(others, dict):
                yield from _rows(others, f"{name}.<name>.")
        else:
            default = f"`{json.dumps(of_key['default'])}`" if "default" in of_key else ""
            yield f"| `{name}` | {_values(of_key)} | {default} | {of_key['description']} |"


def config_table() -> str:
    """Return the Markdown table of all keys of the schema: name, values, default and what each does."""
    return "\n".join(["| key | values | default | what it does |", "|---|---|---|---|", *_rows(load_schema())]) + "\n"


def renew(page: str) -> str:
    """Return ``page`` with a new table between its two markers."""
    before, rest = page.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n{config_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
