"""The report.

Inputs: everything that the report contains.
Outputs: the configuration, software and jobs of the run, and the files that earlier runs left; report.zip, which opens
offline.
Steps: record settings and software of the run; make Snakemake's own report of the finished files.
"""


rule record_run:
    """Record the configuration, software and jobs of this run."""
    input:
        explore_outputs(),
        predict_outputs,
        model_outputs,
    output:
        config=report(
            "results/run/config.yaml",
            caption="../report/config.rst",
            category="Run",
            labels={"table": "configuration, with every default"},
        ),
        software=report(
            "results/run/software.csv",
            caption="../report/software.rst",
            category="Run",
            labels={"table": "software"},
        ),
        jobs=report(
            "results/run/jobs.csv",
            caption="../report/jobs.rst",
            category="Run",
            labels={"table": "time and memory of the jobs"},
        ),
        left_over=report(
            LEFT_OVER,
            caption="../report/left_over.rst",
            category="Run",
            labels={"table": "what earlier runs left"},
        ),
    log:
        "logs/record_run.log",
    benchmark:
        "benchmarks/record_run.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        config=config,
        environments=sorted(
            str(HERE / f"envs/{name}.yaml")
            for name in (
                "analysis",
                "tensorflow",
                SEGMENTATION_ENVIRONMENT,
                *(["import"] if any(imports(name) for name in COLLECTIONS) else []),
            )
        ),
        jobs=listed_jobs,
        unconfigured=lambda wildcards: unconfigured(kept_paths(), model_in_use()),
        studies=lambda wildcards: studies(),
        study_times=study_times,
        version=code_of("provenance", "left_over"),
    script:
        "../scripts/record_run.py"


rule report_zip:
    """Collect figures, tables, run statistics and configuration into one archive."""
    input:
        explore_outputs(),
        predict_outputs,
        model_outputs,
        rules.record_run.output,
    output:
        "results/report.zip",
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(30),
    params:
        python=sys.executable,
        snakefile=str(HERE / "Snakefile"),
        config=config,
    script:
        "../scripts/report_zip.py"
