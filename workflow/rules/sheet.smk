"""The status of every field.

Inputs: the field tables and annotations of all shards.
Outputs: one table of fields per collection, the list of all rejected fields, with reasons, and the numbers of fields
and cells that came in and went out, which are printed at the end of a run.
Steps: join, count.
"""


rule sheet:
    """Join the field tables of a collection's shards."""
    input:
        fields=lambda wildcards: of_shards("fields", wildcards.collection),
        annotations=lambda wildcards: of_shards("annotations", wildcards.collection),
        columns=other_columns,
    output:
        "results/sheet/{collection}.parquet",
    log:
        "logs/sheet/{collection}.log",
    benchmark:
        "benchmarks/sheet/{collection}.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        shards=lambda wildcards: SHARDS[wildcards.collection],
        version=code_of("field_table"),
    script:
        "../scripts/sheet.py"


rule rejected:
    """List every field that any stage rejected, and the warnings, of the collections to predict and to train on."""
    input:
        lambda wildcards: expand(
            "results/sheet/{collection}.parquet",
            collection=used_collections(wildcards),
        ),
    output:
        rejected=report(
            "results/sheet/rejected.csv",
            caption="../report/rejected.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "fields left out", "format": "csv"},
        ),
        warnings=report(
            WARNED,
            caption="../report/warnings.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "warnings", "format": "csv"},
        ),
    log:
        "logs/sheet/rejected.log",
    benchmark:
        "benchmarks/sheet/rejected.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        collections=used_collections,
        version=code_of("accounting"),
    script:
        "../scripts/rejected.py"


rule summary:
    """Count the fields and cells that came in, went through and were rejected, and check that none was lost."""
    input:
        fields=lambda wildcards: expand(
            "results/sheet/{collection}.parquet",
            collection=used_collections(wildcards),
        ),
        predictions=expand("results/predictions/{collection}/cells.parquet", collection=PREDICTED),
        rejected="results/sheet/rejected.csv",
        warnings=WARNED,
    output:
        report(
            "results/sheet/summary.csv",
            caption="../report/conserved.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "fields and cells, in and out", "format": "csv"},
        ),
    log:
        "logs/sheet/summary.log",
    benchmark:
        "benchmarks/sheet/summary.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        collections=used_collections,
        predicted=PREDICTED,
        version=code_of("accounting"),
    script:
        "../scripts/summary.py"


onsuccess:
    lines = summary_lines(SUMMARY, "results/sheet/rejected.csv", WARNED) if is_new(SUMMARY) else []
    lines += baseline_lines(COMPARED) if is_new(COMPARED) else []
    lines += left_out_lines(LEFT_OUT_OF_SCORES) if is_new(LEFT_OUT_OF_SCORES) else []
    lines += hpav23_lines(HPAV23_TABLE) if is_new(HPAV23_TABLE) else []
    lines += [UNCHECKED] if UNCHECKED and is_new(METRICS) else []
    lines += [UNSCORED] if UNSCORED and (is_new(SUMMARY) or is_new(METRICS)) else []
    lines += left_over_lines(LEFT_OVER) if is_new(LEFT_OVER) else []
    if lines:
        print("", *lines, sep="\n", file=sys.stderr)
