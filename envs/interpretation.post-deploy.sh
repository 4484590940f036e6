#!/bin/bash
# Installs cp-measure and centrosome, CellProfiler's own library, which it needs, into the active environment.
# They are not in interpretation.yaml, because centrosome requires pillow below 12, which would replace the pillow that
# everything else is tested with. It uses pillow in only one module, which cp-measure does not import.
set -euo pipefail

python -m pip install --quiet --no-deps cp-measure==0.3.0 centrosome==1.3.4
python -c 'import cp_measure.bulk'
