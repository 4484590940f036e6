"""Figures of the data.

Inputs: the sheet and images of the labelled collection that trains (or of the first one; with model.path, of a
predicted one).
Outputs: label distribution, labels per field, co-occurrence, the channels of a field, panels of each location.
Steps: count, choose fields, draw.
"""


rule explore_data:
    """Draw the label distribution, label co-occurrence, channels and location panels of a collection."""
    input:
        manifests=of_shards("manifest", EXPLORED),
        annotations=of_shards("annotations", EXPLORED),
        images=[path for shard in SHARDS[EXPLORED] for path in made(EXPLORED, shard)],
    output:
        [
            report(
                f"results/figures/{name}.{suffix}",
                caption=f"../report/{name}.rst",
                category="Data",
                subcategory="Figures",
                labels={
                    "figure": EXPLORE_FIGURES[name],
                    "format": suffix,
                },
            )
            for name in EXPLORE_FIGURES
            for suffix in ("svg", "png")
        ],
    log:
        "logs/explore.log",
    benchmark:
        "benchmarks/explore.tsv"
    conda:
        "../../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        version=code_of("figures.data"),
    script:
        "../scripts/explore.py"
