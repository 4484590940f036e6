"""Simulated fields.

Inputs: a shard's manifest, which for simulated fields has labels and cell line in addition to id and seed.
Outputs: its channel files, truth masks and truth labels.
Steps: draw each field from its id and the seed.
"""


rule simulate:
    """Draw the fields of one shard of a simulated collection."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
    output:
        directory("resources/simulated/{collection}/{shard}"),
    log:
        "logs/simulate/{collection}/{shard}.log",
    benchmark:
        "benchmarks/simulate/{collection}/{shard}.tsv"
    conda:
        "../../envs/segmentation.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        simulate=lambda wildcards: COLLECTIONS[wildcards.collection]["simulate"],
        version=code_of("simulate.shard"),
    script:
        "../scripts/simulate.py"
