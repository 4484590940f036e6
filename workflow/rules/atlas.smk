"""The fields of the public Human Protein Atlas.

Inputs: the sheets of the atlas, which planning made of its XML (hpaloc/atlas_planning.py), and their counts.
Outputs: none; an estimate of images, disk and hours, which is printed each time that it is asked for.
Steps: count, multiply by measured sizes and rates. No image is fetched.
"""


localrules:
    estimate_atlas,


rule estimate_atlas:
    """Print the fields per class, the disk and the hours that the atlas's collections need."""
    input:
        atlas_files,
    log:
        "logs/atlas/estimate.log",
    conda:
        "../../envs/segmentation.yaml"
    threads: 1
    resources:
        mem_mb=grows(500),
        runtime=grows(10),
    params:
        n_colours={name: len(colours_of(own)) for name, own in COLLECTIONS.items()},
        version=code_of("atlas_estimate"),
    script:
        "../scripts/estimate_atlas.py"
