"""Divide the sheet of the competition of 2021: `PYTHONPATH=. .venv/bin/python docs/make_kaggle_sheets.py FOLDER`.

FOLDER has train.csv; training.csv and held_out.csv are written beside it.
"""

import argparse
from pathlib import Path

from hpaloc.classes import parse_labels
from hpaloc.files import write_if_changed
from hpaloc.splitting import split_groups

FRACTION, SEED = 0.2, 1


def divide_sheet(text: str) -> dict[str, str]:
    """Return the texts of training.csv and held_out.csv, which have the lines of train.csv in their order.

    One field in five is held out, stratified by label set; a label set that occurs once is in the training.
    """
    header, *lines = text.splitlines()
    rows = [line.split(",") for line in lines]
    parts = split_groups([parse_labels(row[1]) for row in rows], [row[0] for row in rows], FRACTION, SEED)
    chosen = {"training.csv": "train", "held_out.csv": "validation"}
    return {
        name: "\n".join([header, *(line for line, own in zip(lines, parts, strict=True) if own == part)]) + "\n"
        for name, part in chosen.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of train.csv")
    folder = parser.parse_args().folder
    for name, text in divide_sheet((folder / "train.csv").read_text(encoding="utf-8")).items():
        write_if_changed(folder / name, text)
        print(f"{folder / name}: {len(text.splitlines()) - 1} fields")
