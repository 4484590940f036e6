"""Curation.

Inputs: the cell and field tables of the training collection, and the annotations of its sheet.
Outputs: the examples (one row each: cell, labels, weight, origin, part), a summary of counts, the rejected cells.
Steps: filter, label, add negatives, split by group, oversample.
"""


rule curate:
    """Choose and label the cells that train and validate the model."""
    input:
        unpack(to_curate(TRAINING)),
    output:
        examples="results/dataset/examples.parquet",
        summary=report(
            "results/dataset/summary.json",
            caption="../report/summary.rst",
            category="Data",
            subcategory="Tables",
            labels={"table": "counts of the training data", "format": "json"},
        ),
        rejected="results/dataset/rejected_cells.parquet",
    log:
        "logs/curate.log",
    benchmark:
        "benchmarks/curate.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        **curation_params(TRAINING),
        version=code_of(
            "columns", "curation", "fold_table", "joining", *(["matching"] if labelled_by_truth(TRAINING) else [])
        ),
    script:
        "../scripts/curate.py"
