"""Files of microscopes.

Inputs: a shard's manifest (and, through it, files that hpaloc does not read itself: CZI, LIF, ND2 …).
Outputs: one TIFF per colour of a field, and a table of what each file says of itself.
Steps: open each file by the reader that bioio has for it, read the planes that the collection chooses, write them; in
the place of a field that cannot be read, write the reason.
"""


rule import_images:
    """Write the planes of one shard that are in files of microscopes as plain files."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
    output:
        directory("results/imported/{collection}/{shard}"),
    log:
        "logs/import_images/{collection}/{shard}.log",
    benchmark:
        "benchmarks/import_images/{collection}/{shard}.tsv"
    conda:
        "../../envs/import.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        version=code_of("importing"),
    script:
        "../scripts/import_images.py"
