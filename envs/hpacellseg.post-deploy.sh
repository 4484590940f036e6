#!/bin/bash
# Installs hpacellseg and pytorch_zoo into the active environment, at the commits that were tested.
# They are not in hpacellseg.yaml, because
# - the setup.py of pytorch_zoo uses setuptools without importing it, which pip's build refuses (NameError);
# - hpacellseg requires that same package by URL, and opencv-python, which overwrites opencv-python-headless and needs
#   an X11 library that compute nodes lack. With --no-deps neither is installed; hpacellseg.yaml has all it imports.
set -euo pipefail

sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT

git clone --quiet https://github.com/haoxusci/pytorch_zoo "$sources/pytorch_zoo"
git -C "$sources/pytorch_zoo" checkout --quiet e7f30cd9d2e900439f98d250ac309caf03a166b4
sed -i '1i import setuptools' "$sources/pytorch_zoo/setup.py"

git clone --quiet https://github.com/CellProfiling/HPA-Cell-Segmentation "$sources/hpacellseg"
git -C "$sources/hpacellseg" checkout --quiet 7b6dbc635253f08d392c96269e03149e2fb785c2

python -m pip install --quiet --no-deps "$sources/pytorch_zoo" "$sources/hpacellseg"
python -c 'import pytorch_zoo, hpacellseg.cellsegmentator'
