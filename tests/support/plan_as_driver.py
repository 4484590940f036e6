"""Run Snakemake so that code of hpaloc cannot import what is not in driver.lock: python plan_as_driver.py ARGUMENTS.

Other packages import what they find, since those of the driver have other versions and needs than the installed ones.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "driver.lock"


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def lacking():
    """Return the installed modules that are not of a package in driver.lock."""
    locked = {normal(name) for name in re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.MULTILINE)}
    installed = importlib.metadata.packages_distributions()
    return {module for module, names in installed.items() if not {normal(name) for name in names} & locked}


class Hiding:
    """A finder that finds what another one does, but for code of hpaloc not what is hidden."""

    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while frame and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        asking = str(frame.f_globals.get("__name__")) if frame else ""
        if asking.startswith("hpaloc") and name.split(".")[0] in self.hidden:
            return None
        return self.finder.find_spec(name, path, target)


if __name__ == "__main__":
    hidden = lacking()
    sys.meta_path[:] = [Hiding(finder, hidden) for finder in sys.meta_path]
    from snakemake.cli import main

    main()
