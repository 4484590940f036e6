"""Draw the rules of the workflow into docs/rulegraph.svg, from the plan of the demo."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rulegraph.svg"

# The subjects of the rules and their colours: Okabe and Ito's palette, light.
STAGES = {
    "data": ("#dcebf7", ("simulate", "download", "segment", "tile", "sheet", "rejected", "summary", "explore_data")),
    "model": (
        "#fbe3cf",
        (
            "curate",
            "records",
            "train",
            "model_card",
            "training_curves",
            "receptive_field",
            "note_seen",
            "add_seen",
            "learn_baselines",
            "learn_fusion",
        ),
    ),
    "calls": (
        "#d5efe6",
        ("predict", "aggregate", "pool", "submit", "find_seen", "measure_baselines", "evaluate", "draw_scores"),
    ),
    "people": ("#efe3ee", ("browse_shard", "browse", "record_run", "report_zip")),
}
LEFT_OUT = {"all", "predict_only", "explore", "interpret"}
WIDTH, HEIGHT, ACROSS, DOWN, LANE = 132, 30, 20, 30, 34


def rule_edges() -> list[tuple[str, str]]:
    """Ask Snakemake for the dependencies of the demo's rules: [(rule, rule that uses its output)]."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
        (Path(folder) / "config").symlink_to(ROOT / "config")
        command += ["--configfile", ROOT / "config" / "config.yaml", "--rulegraph"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', text, flags=re.MULTILINE))
    edges = re.findall(r"^\s*(\d+) -> (\d+)", text, flags=re.MULTILINE)
    return sorted((names[a], names[b]) for a, b in edges if names[a] not in LEFT_OUT and names[b] not in LEFT_OUT)


def without_shortcuts(edges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Drop each edge whose ends are also connected by a longer path."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reached(rule: str) -> set[str]:
        found: set[str] = set()
        waiting = list(after.get(rule, ()))
        while waiting:
            here = waiting.pop()
            if here not in found:
                found.add(here)
                waiting += after.get(here, ())
        return found

    return [(a, b) for a, b in edges if not any(b in reached(c) for c in after[a] - {b})]


def rows_of(edges: Sequence[tuple[str, str]]) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """Arrange the rules in rows, each below all that it depends on, and return the rows and the pieces of the edges.

    An edge that passes rows has a place in each of them (a name with a "/"), so that it runs around their rules. Within
    a row, rules are near those that they are connected to (Sugiyama, Tagawa and Toda 1981).
    """
    row = dict.fromkeys(sorted({rule for edge in edges for rule in edge}), 0)
    for _ in list(row):
        for a, b in edges:
            row[b] = max(row[b], row[a] + 1)
    pieces = []
    for a, b in edges:
        way = [a, *(f"{a}/{b}/{number}" for number in range(row[a] + 1, row[b])), b]
        row |= {step: row[a] + at for at, step in enumerate(way)}
        pieces += list(pairwise(way))
    rows = [[rule for rule in row if row[rule] == number] for number in range(max(row.values()) + 1)]
    place = {rule: at - len(of_row) / 2 for of_row in rows for at, rule in enumerate(of_row)}
    for turn in range(24):
        for of_row in rows if turn % 2 == 0 else rows[::-1]:
            for rule in of_row:
                beside = [place[a if b == rule else b] for a, b in pieces if rule in (a, b)]
                place[rule] = sum(beside) / len(beside)
            of_row.sort(key=lambda rule: (place[rule], rule))
            place |= {rule: at - (len(of_row) - 1) / 2 for at, rule in enumerate(of_row)}
    return rows, pieces


def _room(name: str) -> int:
    """Return the width of a rule, or of an edge that passes."""
    return LANE if "/" in name else WIDTH + ACROSS


def picture(edges: Sequence[tuple[str, str]]) -> str:
    """Return the SVG."""
    rows, pieces = rows_of(edges)
    wide = max(sum(map(_room, row)) for row in rows)
    high = len(rows) * (HEIGHT + DOWN) - DOWN + 20
    middle: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        left = (wide - sum(map(_room, row))) / 2
        for rule in row:
            middle[rule] = (left + _room(rule) / 2, 10 + HEIGHT / 2 + number * (HEIGHT + DOWN))
            left += _room(rule)
    colour = {rule: fill for fill, rules in STAGES.values() for rule in rules}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{high}" viewBox="0 0 {wide:.0f} {high}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="13" role="img">',
        "<title>The rules of the workflow and what feeds what</title>",
        f'<rect width="{wide:.0f}" height="{high}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#7a828c"/></marker></defs>',
    ]
    for a, b in pieces:
        (x0, y0), (x1, y1) = middle[a], middle[b]
        y0, y1 = y0 + HEIGHT / 2, y1 - HEIGHT / 2
        bend = (y1 - y0) / 2
        path = f"M{x0:.0f} {y0:.0f}C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}"
        tip = ' marker-end="url(#tip)"'
        if "/" in b:
            path, tip = f"{path}v{HEIGHT}", ""
        lines.append(f'<path d="{path}" fill="none" stroke="#7a828c" stroke-width="1.3"{tip}/>')
    for rule, (x, y) in middle.items():
        if "/" not in rule:
            lines.append(
                f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
                f'fill="{colour.get(rule, "#eeeeee")}" stroke="#59636e"/>'
            )
            lines.append(
                f'<text x="{x:.0f}" y="{y + 4.5:.1f}" text-anchor="middle" fill="#1b1f24">{escape(rule)}</text>'
            )
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(without_shortcuts(rule_edges())), encoding="utf-8")
