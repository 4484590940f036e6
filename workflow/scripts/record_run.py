"""Record the configuration, software and jobs of this run."""

import yaml

from hpaloc.files import atomic_path
from hpaloc.progress import log_to
from hpaloc.provenance import job_table, software_table


def main(job):
    with atomic_path(job.output.config) as temporary:
        temporary.write_text(yaml.safe_dump(job.params.config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for path, table in (
        (job.output.software, software_table(job.params.environments)),
        (job.output.jobs, job_table("benchmarks")),
    ):
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")


if __name__ == "__main__":
    log_to(snakemake.log[0])
    main(snakemake)
