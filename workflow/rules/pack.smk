"""Packing.

Inputs: the model folder, its card, the scores of the run.
Outputs: one zip that another person's model.path names, as a file or by its address.
Steps: add the scores and the licence of the training images to the card; list every file with its digest.
"""


rule pack_model:
    """Pack the model that this run trains as one zip, for others to predict with."""
    input:
        model=model_to_pack,
        card=trained_here("card.md"),
        scores="results/evaluation/scores.csv",
        metrics=METRICS,
    output:
        "results/model.zip",
    log:
        "logs/pack_model.log",
    benchmark:
        "benchmarks/pack_model.tsv"
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(10),
    params:
        licence=config["model"]["images_licence"],
        version=code_of("packing"),
    script:
        "../scripts/pack_model.py"
