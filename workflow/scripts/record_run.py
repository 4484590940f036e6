"""Record the configuration, software and jobs of this run, and what earlier runs left."""

from pathlib import Path

import yaml

from hpaloc.files import atomic_path, write_text
from hpaloc.left_over import other_settings, outdated, write_left_over
from hpaloc.progress import log_to
from hpaloc.provenance import job_table, software_table


def main(job):
    write_text(job.output.config, yaml.safe_dump(job.params.config, sort_keys=False, allow_unicode=True))
    for path, table in (
        (job.output.software, software_table(job.params.environments)),
        (job.output.jobs, job_table(job.params.jobs)),
    ):
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
    old = {}
    for target, (made, sources, settings) in job.params.studies.items():
        folder = Path(made).parent
        reason = outdated(made, sources)
        if reason is None and Path(made).exists():
            reason = other_settings(folder / "settings.json", settings)
        if reason is not None and str(folder) not in job.params.unconfigured:
            old[str(folder)] = (reason, target)
    write_left_over(job.output.left_over, job.params.unconfigured, old)


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
