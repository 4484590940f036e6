"""Print the fields, the disk and the hours that the collections of the atlas need."""

import json
import os
from pathlib import Path

from hpaloc.atlas_estimate import estimate_lines
from hpaloc.progress import log_to


def main(job, terminal):
    summary = json.loads(Path(job.input[0]).read_bytes())
    print("\n".join(estimate_lines(job.config, summary, job.params.n_colours)), file=terminal, flush=True)


if __name__ == "__main__":
    # The log takes all that is printed, except the estimate.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as terminal:
        log_to(snakemake.log[0])
        main(snakemake, terminal)
