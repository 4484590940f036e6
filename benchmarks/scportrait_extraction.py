"""Extract the cells of a montage with scPortrait; run by tiles.py with the interpreter that has it.

usage: python scportrait_extraction.py montage.npz size

The montage holds `image` (4, H, W) uint16, `nuclei` and `cells` (H, W) uint32 with shared ids. Prints one JSON line:
version, cells extracted, and seconds of CPU and wall for Project.extract() alone, the loading of the project left out.
"""

import json
import resource
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scportrait.pipeline.extraction import HDF5CellExtraction
from scportrait.pipeline.project import Project


def cpu_seconds():
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main(montage, size):
    data = np.load(montage)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yml"
        config.write_text(
            "HDF5CellExtraction:\n"
            f"  threads: 1\n  image_size: {size}\n  cache: {folder}\n  normalize_output: true\n"
            "  normalization_range: [0.001, 0.999]\n"
        )
        project = Project(
            f"{folder}/project", config_path=str(config), extraction_f=HDF5CellExtraction, overwrite=True, debug=False
        )
        project.load_input_from_array(data["image"], channel_names=["blue", "red", "green", "yellow"])
        files = project.filehandler
        for name, labels in ((project.nuc_seg_name, data["nuclei"]), (project.cyto_seg_name, data["cells"])):
            files._write_segmentation_sdata(labels, name, overwrite=True)
            files._add_centers(name, overwrite=True)
        wall, cpu = time.perf_counter(), cpu_seconds()
        project.extract()
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        cells = int(project.extraction_f.num_classes)
    print(json.dumps({"version": version("scportrait"), "cells": cells, "cpu": cpu, "wall": wall}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
