"""Marks of tests by the folder they are in; what else a test needs, its file says itself."""

import pytest

# Folders whose tests start what takes its time: Snakemake, a Slurm or environments of conda, a Chromium.
MARKED = ("workflow", "cluster", "browser")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if (folder := item.path.parent.name) in MARKED:
            item.add_marker(folder)
