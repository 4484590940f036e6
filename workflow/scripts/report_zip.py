"""Collect figures, tables, run statistics and configuration into one archive."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from hpaloc.progress import log_to


def main(job):
    final = Path(job.output[0])
    # The folder in the archive is named after the file, so the temporary file needs the final name.
    with tempfile.TemporaryDirectory(prefix=".report.", dir=final.parent) as folder:
        archive, configuration = Path(folder, final.name), Path(folder, "config.json")
        configuration.write_text(json.dumps(job.params.config), encoding="utf-8")
        # Snakemake makes its own report of files that are all finished by now; --nolock, since the run of this job has
        # the lock. That run may be of another workflow, with this one as a module: Snakemake recognises files by their
        # paths, so this workflow alone, without the profile of the other, is enough.
        command = [
            *(job.params.python, "-m", "snakemake", "--snakefile", job.params.snakefile, "--nolock"),
            *("--profile", "none", "--workflow-profile", "none"),
            *("--configfile", configuration, "--report", archive, "--", *job.input),
        ]
        subprocess.run(command, check=True, env=os.environ | {"HPALOC_REPORT_OF_RUN": "1"})
        archive.replace(final)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
