# One image for all rules of the workflow but those of hpacellseg and SpatialData: the environment of `make`, from the
# same lock file. docs/cluster.md says how to use it.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates make python3 python3-venv
WORKDIR /opt/hpaloc
COPY Makefile pyproject.toml requirements.lock ./
RUN make .venv/installed
# For GPUs: docker build --build-arg TENSORFLOW="tensorflow[and-cuda]==2.16.2"
ARG TENSORFLOW=""
RUN test -z "$TENSORFLOW" || .venv/bin/python -m pip install --no-cache-dir "$TENSORFLOW"
ENV PATH=/opt/hpaloc/.venv/bin:$PATH
