# make demo    run the whole workflow on simulated fields and print the paths of the results
# make test    run the test suite
SHELL := /bin/bash
# The first of these that there is. Without one, make fetches Python 3.11 by uv.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12))
CORES ?= $(shell nproc)
BIN := .venv/bin
# The installer itself, pinned: it reads the lock file and is several times faster than pip.
UV := uv==0.13.9
PIP_AUDIT := 2.10.1

.PHONY: demo driver test test-quick test-full test-hpacellseg test-torchscript test-latest lint types audit lock docs browser-assets clean help

help:
	@sed -n 's/^# make/make/p' Makefile

# $(call environment,FOLDER,LOCK) installs a lock file into a new environment. The stamp is written last, so an
# interrupted installation is repeated.
define with_python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo "hpaloc needs Python 3.11 or 3.12 (tensorflow-io); set PYTHON=/path/to/one"; exit 1; }
	$(PYTHON) -m venv --clear $(1)
endef

define with_fetched_python
	@echo "There is no python3.11 or python3.12 here: uv fetches Python 3.11 (or set PYTHON=/path/to/one)"
	python3 -m venv --clear $(1)/fetch
	$(1)/fetch/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(1)/fetch/bin/uv venv --quiet --seed --allow-existing --python 3.11 $(1)
	rm -rf $(1)/fetch
endef

define environment
	@# Through a link, --clear would empty the environment of another checkout.
	@test ! -L $(1) || { echo "$(1) is a link; remove it, and make installs an environment here"; exit 1; }
	$(if $(PYTHON),$(call with_python,$(1)),$(call with_fetched_python,$(1)))
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	@# Compiled now, or every process of the first run compiles, and all later ones if Python may not write there.
	VIRTUAL_ENV=$(1) $(1)/bin/uv pip install --quiet --compile-bytecode --requirements $(2)
	touch $(1)/installed
endef

.venv/installed: requirements.lock
	$(call environment,.venv,requirements.lock)

# The rules' own environments have Python 3.11, and their scripts read what the driver's Python pickles.
.venv-driver/installed: PYTHON = $(shell command -v python3.11)
.venv-driver/installed: driver.lock
	$(call environment,.venv-driver,driver.lock)

# make driver  install only Snakemake and its SLURM plugin in .venv-driver, to start runs on a cluster (docs/cluster.md)
driver: .venv-driver/installed
	@echo "The driver: $(CURDIR)/.venv-driver/bin/snakemake"

# The cells that were found come before the training (which the other scheduler of Snakemake cannot do). A person who
# watches sees one line, not pages of log.
demo: .venv/installed
	@echo "In about two minutes, the cells that were found: $(CURDIR)/results/preview/test.html"
	@if [ -t 2 ]; then export PYTHONPATH=workflow/plugins$${PYTHONPATH:+:$$PYTHONPATH}; line="--logger hpaloc"; fi; \
	  $(BIN)/snakemake --cores $(CORES) $$line --scheduler greedy --prioritize results/preview/test.html
	@echo "The cell browser: $(CURDIR)/results/browser/index.html"
	@echo "The report: $(CURDIR)/results/report.zip"

# One process runs a whole test file and makes shared fixtures once; pyproject.toml gives the order of the files. One
# more than there are cores for the whole suite, some of which waits for a scheduler or a browser.
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
MORE = -n $(shell echo $$(($(CORES) + 1)))

# make test-quick   run the tests that start no workflow, cluster, browser or Dask and load no TensorFlow
test-quick: .venv/installed
	$(PYTEST) -n $(CORES) -m "not (slow or workflow or cluster or browser or network or workers)"

# make test-full    run the slow tests too
test: .venv/installed
	$(PYTEST) $(MORE) -m "not slow"

test-full: .venv/installed
	$(PYTEST) $(MORE)

# The environments below have other versions than that of `make`, whose overrides (pyproject.toml) do not apply to them:
# --no-config.

# make test-hpacellseg    run the tests that need torch, in an environment made from envs/hpacellseg.yaml
.venv-hpacellseg/installed: envs/hpacellseg.yaml envs/hpacellseg.post-deploy.sh .venv/installed
	$(BIN)/python -m venv --clear .venv-hpacellseg
	$(call PIP_OF,$<) > .venv-hpacellseg/requirements.txt
	VIRTUAL_ENV=.venv-hpacellseg $(BIN)/uv pip install --no-config --quiet --requirements .venv-hpacellseg/requirements.txt \
	  pytest pytest-xdist psutil
	PATH=$(CURDIR)/.venv-hpacellseg/bin:$$PATH bash envs/hpacellseg.post-deploy.sh
	touch $@

test-hpacellseg: .venv-hpacellseg/installed
	.venv-hpacellseg/bin/python -m pytest tests/library/test_segmentation_hpacellseg.py \
	  tests/library/test_segmentation_labelling.py

# The Python of the environments that need a newer one.
LATEST_PYTHON ?= python3.13

# make test-torchscript    run the tests of networks that are TorchScript, and of the benchmark of GPUs with PyTorch, in
#                          an environment made from envs/torchscript.yaml
.venv-torchscript/installed: envs/torchscript.yaml .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(LATEST_PYTHON) .venv-torchscript
	$(call PIP_OF,$<) > .venv-torchscript/requirements.txt
	VIRTUAL_ENV=.venv-torchscript $(BIN)/uv pip install --no-config --quiet --requirements .venv-torchscript/requirements.txt \
	  pytest pytest-xdist psutil jsonschema
	touch $@

test-torchscript: .venv-torchscript/installed
	.venv-torchscript/bin/python -m pytest tests/library/test_segmentation_torchscript.py \
	  tests/library/test_gpu_benchmark.py

# make test-latest    run the tests of records, model, training and prediction with the newest TensorFlow, and of the
#                     benchmark of GPUs on JAX, in an environment made from envs/tensorflow-latest.yaml
.venv-latest/installed: envs/tensorflow-latest.yaml .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(LATEST_PYTHON) .venv-latest
	@# The tests need no GPU: not the gigabytes of CUDA's packages.
	$(call PIP_OF,$<) | sed 's/^tensorflow\[and-cuda\]/tensorflow-cpu/' > .venv-latest/requirements.txt
	VIRTUAL_ENV=.venv-latest $(BIN)/uv pip install --no-config --quiet --requirements .venv-latest/requirements.txt \
	  pytest pytest-xdist hypothesis psutil jsonschema scipy scikit-image connected-components-3d fill-voids edt \
	  "jax[cpu]"
	touch $@

test-latest: .venv-latest/installed
	HPALOC_OTHER_PYTHON=$(CURDIR)/$(BIN)/python .venv-latest/bin/python -m pytest --dist loadfile -n $(CORES) \
	  tests/library/test_records.py tests/library/test_network.py tests/library/test_training.py \
	  tests/library/test_training_cache.py tests/library/test_prediction.py tests/library/test_two_tensorflows.py \
	  tests/library/test_gpu_benchmark.py

# make lint    check the style of workflow and library, and the spelling
lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/codespell
	$(BIN)/snakemake --lint

# make types   check the types of the library
types: .venv/installed
	$(BIN)/mypy

# make audit   look up the locked packages in the databases of known vulnerabilities
audit: .venv/installed
	@# Strict, because otherwise packages that the index does not know would pass as having no vulnerabilities.
	for lock in requirements.lock driver.lock; do \
	  $(BIN)/uv tool run pip-audit==$(PIP_AUDIT) --strict --requirement $$lock --no-deps --disable-pip || exit 1; \
	done

# Options that make a lock file depend only on its source, and serve Python 3.11 and 3.12 with the same versions.
LOCK := --quiet --universal --python-version 3.11 --fork-strategy fewest --no-emit-index-url --no-header --output-file
# The packages that an environment file installs from PyPI, one per line.
PIP_OF = $(BIN)/python -c 'import yaml; \
  print(*next(e["pip"] for e in yaml.safe_load(open("$(1)"))["dependencies"] if isinstance(e, dict)), sep="\n")'

# make lock    renew the lock files after a change of pyproject.toml or envs/driver.yaml
lock: .venv/installed
	$(BIN)/uv pip compile pyproject.toml --all-extras $(LOCK) requirements.lock
	@# Nothing here forbids a newer numpy.
	$(call PIP_OF,envs/driver.yaml) | $(BIN)/uv pip compile - --no-config $(LOCK) driver.lock

# make docs    renew the pages that are made from the code, and build the site of all pages in site/
docs: .venv/installed
	PYTHONPATH=. $(BIN)/python docs/make_config_table.py
	$(BIN)/python docs/make_rulegraph.py
	PYTHONPATH=. $(BIN)/python docs/make_bad_input.py
	PYTHONPATH=. $(BIN)/python docs/make_layouts.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The site: $(CURDIR)/site/index.html"

# make browser-assets   bundle the page of the cell browser from its sources (needs npm); the bundle is committed
browser-assets:
	cd hpaloc/browser/source && npm ci --no-audit --no-fund && npm run build

# make clean    delete everything that runs made, except for downloaded images
clean:
	rm -rf results resources/simulated logs benchmarks/*/ benchmarks/*.tsv .snakemake
