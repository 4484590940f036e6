"""Public fields.

Inputs: a shard's manifest (ids and addresses).
Outputs: its channel files beside the log of their digests.
Steps: ask politely, try again, go on with what was cut short, check, note the digest. The files themselves are no
declared output, so that a job that failed finds them when it is run again.
"""


rule download:
    """Fetch the channel files of one shard from public addresses."""
    input:
        manifest="results/sheet/{collection}/{shard}.csv",
    output:
        "resources/downloaded/{collection}/{shard}.csv",
    log:
        "logs/download/{collection}/{shard}.log",
    benchmark:
        "benchmarks/download/{collection}/{shard}.tsv"
    localrule: True
    conda:
        "../../envs/segmentation.yaml"
    threads: 1
    resources:
        mem_mb=grows(500),
        runtime=grows(600),
    # No version: what an address gives does not depend on the code that asks for it.
    script:
        "../scripts/download.py"
