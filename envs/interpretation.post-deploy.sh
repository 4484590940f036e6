#!/bin/bash
# Installs cp-measure and what it needs of CellProfiler's own library into the environment that is active.
# They are no lines of interpretation.yaml, because centrosome asks for pillow below 12, which would replace the pillow that
# everything else is tested with. It uses pillow in one module only, which cp-measure does not import.
set -euo pipefail

python -m pip install --quiet --no-deps cp-measure==0.3.0 centrosome==1.3.4
python -c 'import cp_measure.bulk'
