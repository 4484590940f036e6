"""The description of a folder of images, before there is a configuration for it.

Inputs: the folder, file or pattern that `--config images=` names.
Outputs: a configuration with what was found as comments, which is also printed, and a contact sheet. The rule declares
no outputs and no benchmark, so it describes the folder each time that it is asked for.
Steps: sort the names, look into a few files, guess the colours, draw.
"""


localrules:
    describe,


rule describe:
    """Look at a folder of images, and print a configuration for it."""
    default_target: MAIN and DESCRIBED is not None
    input:
        check_described,
    log:
        "results/description/describe.log",
    conda:
        "../../envs/segmentation.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        images=DESCRIBED,
        folder="results/description",
    script:
        "../scripts/describe.py"


# Another workflow calls the handler of this one; that of sheet.smk takes its place where there is a run to tell of.
onsuccess:
    pass
