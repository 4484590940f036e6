"""What a run was made with: the versions of its software, and the time and memory of its jobs."""

import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd
import yaml

SOFTWARE_COLUMNS = ("environment", "package", "wanted", "here")
JOB_COLUMNS = ("rule", "job", "seconds", "memory_mb", "cpu_seconds")


def _pins(path: Path) -> list[tuple[str, str]]:
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]
    flat = [pin for entry in entries for pin in (entry["pip"] if isinstance(entry, dict) else [entry])]
    # A channel may precede the name, extras may follow it: conda-forge::numpy=1.26, tensorflow[and-cuda]==2.16.
    found = [re.fullmatch(r"(?:\S+::)?([\w.-]+)(?:\[[^\]]*\])?\s*(?:==?\s*(\S+))?", pin) for pin in flat]
    return [(match[1], match[2] or "") for match in found if match]


def _installed(package: str) -> str:
    if package == "python":
        return platform.python_version()
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def software_table(environments: Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """List the packages of conda environment files, and the version of each in this environment.

    Returns the columns environment, package, wanted (the version in the file) and here ("" if it is not installed in
    this environment), with rows for snakemake and the platform first.
    Raises FileNotFoundError if a file is absent.
    """
    rows = [("", "snakemake", "", _installed("snakemake")), ("", "platform", "", platform.platform())]
    for path in map(Path, environments):
        rows += [(path.stem, name, wanted, _installed(name)) for name, wanted in _pins(path)]
    return pd.DataFrame(rows, columns=list(SOFTWARE_COLUMNS))


def job_table(files: Iterable[str | os.PathLike[str]], folder: str | os.PathLike[str] = "benchmarks") -> pd.DataFrame:
    """List the last run of each job, from Snakemake's benchmark files below ``folder``.

    files: the benchmark files of the jobs; absent ones are ignored
    Returns the columns rule (the folder, or the file of a rule of one job), job (the rest of the file's path), seconds,
    memory_mb (the greatest resident set; nan if it was not measured) and cpu_seconds, the longest first.
    """
    rows = []
    for path in sorted(path for path in set(map(Path, files)) if path.is_file()):
        parts = path.relative_to(folder).with_suffix("").parts
        last = pd.read_csv(path, sep="\t", na_values=["-", "NA"]).iloc[-1]
        rows.append((parts[0], "/".join(parts[1:]), last["s"], last.get("max_rss"), last.get("cpu_time")))
    return pd.DataFrame(rows, columns=list(JOB_COLUMNS)).sort_values("seconds", ascending=False, ignore_index=True)
