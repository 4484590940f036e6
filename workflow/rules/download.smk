"""Public fields.

Inputs: a shard's manifest (ids and addresses).
Outputs: its channel files, and the log of their digests next to them.
Steps: request with a rate limit, retry, resume interrupted files, check, record the digest. The files are not declared
as outputs, so that a failed job finds them when it runs again.
"""


rule download:
    """Download the channel files of one shard from public addresses."""
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
    # No version: what an address returns does not depend on the code that requests it.
    script:
        "../scripts/download.py"
