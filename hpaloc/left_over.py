"""What earlier runs left among the results: files that this configuration does not make, which are never deleted."""

import csv
import glob
import json
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpaloc.files import atomic_path

COLUMNS = ("path", "newest", "reason", "what_to_do")

# The places of files that one configuration makes and another does not: those of a collection, a shard, a control or a
# training. Files for all collections together have one name, and are always of the latest run.
PLACES = (
    "sheet/*/",
    "sheet/*.parquet",
    "sheet/*/truth.csv",
    *(
        f"{stage}/{level}"
        for stage in ("imported", "segmentation", "cells", "tiles", "baselines")
        for level in ("*", "*/*")
    ),
    "predictions/*/",
    "predictions/*/shards/*",
    "predictions/*/pooled.parquet",
    "evaluation/*/",
    "browser/*/",
    "browser/*/*/",
    "export/*/*/",
    "export/*/*/*/",
    "few_shot/*/",
    "controls/*/",
    "cross_validation",
    "cross_validation/*/",
    "cross_validation/predictions/*/",
    "cross_validation/*/shards/*",
    "cross_validation/predictions/*/shards/*",
    "cross_validation/evaluation/*/",
    "cross_validation/browser/*/",
    "cross_validation/browser/*/*/",
    "held_out",
    "pretraining",
    "dataset",
    "model",
    "model/mixtures.*",
    "figures/figure*",
    "figures/receptive_field.npz",
)


def unconfigured(
    kept: Collection[str], in_use: Collection[str] = (), results: str | os.PathLike[str] = "results"
) -> list[str]:
    """Return the paths below ``results`` at PLACES that are not of this run, sorted, none inside another.

    kept: paths of this run
    in_use: files and folders that this run reads; an earlier run may have made them, and a link may lead to them
    """
    # Not Path.glob, which also finds hidden files: temporary ones, and Snakemake's own.
    found = {path.rstrip("/") for place in PLACES for path in glob.glob(f"{glob.escape(os.fspath(results))}/{place}")}
    read = [os.path.realpath(path) + os.sep for path in in_use]
    used = {path for path in found if any(place.startswith(os.path.realpath(path) + os.sep) for place in read)}
    foreign = found - set(kept) - used
    return sorted(path for path in foreign if not any(str(parent) in foreign for parent in Path(path).parents))


def _newest(path: Path) -> float:
    """Return the time of the newest file in a path, in seconds."""
    below = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return max(file.lstat().st_mtime for file in (below or [path]))


def outdated(made: str | os.PathLike[str], sources: Iterable[str | os.PathLike[str]]) -> str | None:
    """Return why the file ``made`` is not of this run: the first of ``sources`` that is newer; None if none is."""
    if not Path(made).exists():
        return None
    for source in map(Path, sources):
        if source.exists() and source.stat().st_mtime_ns > Path(made).stat().st_mtime_ns:
            return f"is older than {source}, from which it was made"
    return None


def other_settings(stored: str | os.PathLike[str], asked: Mapping[str, Any]) -> str | None:
    """Return why a study is not of this run, naming the settings that differ; None if none do.

    stored: JSON file of the settings that it was made with
    asked: the settings of this run
    """
    try:
        made_with = json.loads(Path(stored).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"has no record in {Path(stored).name} of the settings it was made with"
    # JSON has tuples as lists.
    asked = json.loads(json.dumps(asked))
    others = sorted(name for name in {*made_with, *asked} if made_with.get(name) != asked.get(name))
    return f"was made with other settings ({', '.join(others)})" if others else None


def _delete(name: str) -> str:
    """Return the advice to delete a path; copies of a model folder would use a leftover reading of mixtures."""
    return "delete it before you copy the model" if Path(name).match("model/mixtures.*") else "delete it"


def write_left_over(
    path: str | os.PathLike[str], unconfigured: Sequence[str], outdated: Mapping[str, tuple[str, str]]
) -> None:
    """Write a CSV with COLUMNS of everything that is not of this run.

    unconfigured: paths from ``unconfigured``
    outdated: {path: (why it is not of this run, the target that makes it again)}
    """
    rows = [
        (
            name,
            "is from an earlier run; this configuration does not make it",
            f"{_delete(name)}, or keep it for a run that does",
        )
        for name in unconfigured
    ]
    rows += [(name, reason, f"make it again: snakemake {target}") for name, (reason, target) in outdated.items()]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, reason, what in sorted(rows):
            # A path removed since the run was planned is no longer left over.
            if Path(name).exists():
                newest = time.strftime("%Y-%m-%d %H:%M", time.localtime(_newest(Path(name))))
                writer.writerow([name, newest, reason, what])


def left_over_lines(path: str | os.PathLike[str], at_most: int = 10) -> list[str]:
    """Return the table of ``write_left_over`` as lines for the terminal, at most ``at_most`` paths."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return []
    lines = [f"left by earlier runs (reasons and what to do: {os.fspath(path)}):"]
    lines += [f"  {row['path']} ({row['newest']}): {row['what_to_do']}" for row in rows[:at_most]]
    return [*lines, *([f"  and {len(rows) - at_most} more"] if len(rows) > at_most else [])]
