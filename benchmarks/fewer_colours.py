"""Run the demo on collections that lack colours, and print what that costs as rows of docs/model.md.

Usage: python benchmarks/fewer_colours.py --work FOLDER [--only "RGB" "GB" …] [--cores 2]

Each row is a run of the demo (config/config.yaml) in FOLDER/ROW as far as its scores, with all the same except the
colours. The collections of RGBY, RGB and GB have these colours and no others, so their cells are found without the
others too; those of "RGB of RGBY" and "GB of RGBY" have all four, and the network sees fewer. A run that is complete is
only read. A row takes about 12 minutes on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCORES = "results/evaluation/metrics.json"
# Row: the colours that the collections lack, and those that the network sees.
ROWS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "RGBY": ((), ("red", "green", "blue", "yellow")),
    "RGB": (("yellow",), ("red", "green", "blue")),
    "GB": (("red", "yellow"), ("green", "blue")),
    "RGB of RGBY": ((), ("red", "green", "blue")),
    "GB of RGBY": ((), ("green", "blue")),
}
HEADER = (
    "| colours | cells found, F1 at IoU 0.6 | mean IoU | cells scored | correct | 95 % interval | balanced | fields |",
    "|---|---|---|---|---|---|---|---|",
)


def configured(row: str) -> dict:
    """Return the configuration of a row."""
    lacking, channels = ROWS[row]
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for collection in config["collections"].values():
        collection["sheet"] = str(ROOT / collection["sheet"])
        if lacking:
            collection["channels"] = dict.fromkeys(lacking)
    config["train"]["channels"] = list(channels)
    return config


def run(row: str, folder: Path, cores: int) -> None:
    """Run the demo of a row in a folder as far as its scores."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(configured(row)))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", str(cores), SCORES]
    subprocess.run([*command, "--configfile", "config.yaml"], check=True, cwd=folder)


def scored(row: str, folder: Path) -> str:
    """Return the row of the table of a finished run."""
    metrics = json.loads((folder / SCORES).read_text())["test"]
    scores = pd.read_csv(folder / "results/evaluation/scores.csv").set_index(["level", "score"])
    cells, masks = metrics["cells"], metrics["segmentation"]
    low, high = cells["ci95"]["accuracy"]
    n = int(scores.loc[("cell", "accuracy"), "n"])
    return (
        f"| {row} | {masks['f1_60']:.3f} | {masks['mean_iou']:.3f} | {n} | {cells['accuracy']:.3f} | "
        f"{low:.3f} to {high:.3f} | {cells['balanced_accuracy']:.3f} | {metrics['fields']['accuracy']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    folders = {row: arguments.work / row.replace(" ", "_") for row in arguments.only}
    for row, folder in folders.items():
        run(row, folder, arguments.cores)
    print(*HEADER, *(scored(row, folder) for row, folder in folders.items()), sep="\n")


if __name__ == "__main__":
    main()
