"""The benchmark HPAv23 of CHAMMI-75 (`snakemake hpav23`, config/hpav23.yaml).

Inputs: the predictions of the collections whose labels are those of a table of HPAv23.
Outputs: its scores, as JSON and as a table that is printed at the end of the run.
Steps: compare the probabilities of every crop with its labels.
"""


rule score_hpav23:
    """Score the predicted crops as the benchmark does."""
    input:
        cells=expand("results/predictions/{collection}/cells.parquet", collection=HPAV23),
        fields=expand("results/predictions/{collection}/fields.parquet", collection=HPAV23),
    output:
        scores=HPAV23_SCORES,
        table=HPAV23_TABLE,
    log:
        "logs/score_hpav23.log",
    benchmark:
        "benchmarks/score_hpav23.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        collections=HPAV23,
        version=code_of("evaluation.hpav23"),
    script:
        "../scripts/score_hpav23.py"
