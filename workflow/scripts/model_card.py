"""Write the model card."""

import json
from pathlib import Path

from hpaloc.model_card import write_card
from hpaloc.progress import log_to


def main(job):
    line = None
    if job.params.cross_validation:
        line = json.loads(Path(job.params.cross_validation["summary"]).read_text(encoding="utf-8"))["line"]
    folder, fused = Path(job.input.model[0]).parent, bool(job.input.fusion)
    write_card(folder, Path(job.input.examples), Path(job.output[0]), job.params.images, line, fused)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
