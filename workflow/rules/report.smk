"""The report.

Inputs: everything that is to be in it.
Outputs: report.zip, which opens offline.
Steps: Snakemake's own report over the finished files.
"""


rule report_zip:
    """Collect figures, tables, run statistics and configuration into one archive."""
    input:
        explore_outputs(),
        predict_outputs,
        model_outputs,
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
        snakefile=workflow.main_snakefile,
        config=config,
    script:
        "../scripts/report_zip.py"
