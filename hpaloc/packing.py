"""A model folder as one file: a zip with checksums, card, scores and the licence of the training images."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hpaloc import __version__
from hpaloc.files import atomic_path

# The folder in the archive, and the file in it that lists the others.
FOLDER, LISTING = "model", "package.json"
# The time of all files of an archive, the earliest that a zip can have: equal models are equal bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack_model(files: Sequence[Path], card: Path, scores: Path, metrics: Path, licence: str, out: Path) -> None:
    """Write a model as one zip, whose bytes depend only on the content of its files.

    files: those of the model folder that are packed as they are
    card, scores, metrics: the model card, scores.csv and metrics.json of the evaluation
    licence: of the images that trained the model
    """
    scored = metrics.read_text(encoding="utf-8")
    known = json.loads(scored)
    compared = [
        f"{name}: {of_one['over_baseline']['sentence']}"
        for name, of_one in known.items()
        if isinstance(of_one, dict) and of_one.get("over_baseline")
    ]
    reason = known.get("unscored")
    page = package_card(card.read_text(encoding="utf-8"), pd.read_csv(scores), compared, reason, licence)
    contents = {path.name: path.read_bytes() for path in files}
    contents |= {"card.md": page.encode(), "scores.json": scored.encode()}
    listing = {
        "hpaloc": __version__,
        "licence_of_training_images": licence,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(contents.items())},
    }
    contents[LISTING] = (json.dumps(listing, indent=2) + "\n").encode()
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}", _TIME), content)


def package_card(card: str, scores: pd.DataFrame, compared: Sequence[str], reason: str | None, licence: str) -> str:
    """Return a model card with the scores of other collections and the licence of the training images.

    scores: the table scores.csv of the evaluation
    compared: sentences about the network and its baselines
    reason: why no collection is scored; None if one is
    """
    rows = []
    for row in scores.to_dict("records"):
        interval = "" if pd.isna(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}"
        count = "" if pd.isna(row["n"]) else int(row["n"])
        score = row["score"].replace("_", " ")
        rows.append(f"| {row['collection']} | {row['level']} | {score} | {row['value']:.3f} | {interval} | {count} |")
    heads = ["| collection | level | score | value | 95 % interval | n |", "|---|---|---|---|---|---|"]
    return "\n".join(
        [
            card,
            "## Scores on other collections",
            "",
            *(heads + rows if rows else [f"None: {reason}."]),
            *(f"\n{sentence}." for sentence in compared),
            "",
            "## Licence of the training images",
            "",
            licence,
            "",
        ]
    )
