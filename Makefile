# Every target works in a clean clone with git, make and Python 3.12.
VENV := .venv
PYTHON := $(VENV)/bin/python
# An NVIDIA driver that answers decides which JAX is installed.
REQUIREMENTS := $(shell if nvidia-smi -L >/dev/null 2>&1; then echo requirements.txt; else echo requirements-cpu.txt; fi)
# The stamp names the list it was made from, so a driver that appears later is noticed.
STAMP := $(VENV)/installed-$(REQUIREMENTS)
# The peers of the benchmarks (torch and theirs) live apart.
PEERS := .peers

.DEFAULT_GOAL := help
.PHONY: help env quickstart test slow lint docs fuzz chaos soak peers bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## create .venv with the pinned packages (again only when the pins change)

# A python3.12 on the PATH may be a launcher without a Python behind it, hence the trial run.
$(STAMP): $(REQUIREMENTS) requirements-dev.txt
	@command -v git >/dev/null || { echo "error: git is missing: install it and run make again" >&2; exit 2; }
	@for python in python3.12 python3; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "error: Python 3.12 (with venv) is missing: neither python3.12 nor python3 is one; install it and run make again" >&2; exit 2; fi; \
	rm -f $(VENV)/installed-*; \
	$$found -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS) -r requirements-dev.txt
	@touch $@

quickstart: env ## the full pipeline on bundled data and a bundled model; ends with a table and a report
	$(PYTHON) -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

# Files side by side: compiling, most of the work, keeps one core busy. A worker takes up to 3 GB.
test: env ## the tests but those marked slow
	$(PYTHON) -m pytest -n auto --maxprocesses=4 --dist=loadfile -m "not slow"

slow: env ## the tests marked slow
	$(PYTHON) -m pytest -n auto --maxprocesses=4 --dist=loadfile -m slow

fuzz: env ## odd inputs for every reader, a million of them; half an hour or more, counts in runs/fuzz/fuzz.json
	$(PYTHON) -m tests.fuzz all

lint: env ## ruff: rules and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

docs: env ## write the config fields into docs/reference.md, and draw the figures of the pages
	$(PYTHON) -m r2rec_jax.cli.reference
	$(PYTHON) -m docs.figures.make_figures

chaos: env ## kill every command 50 times at random moments and compare with runs left alone, into runs/chaos
	$(PYTHON) -m tests.chaos --workdir=runs/chaos --overwrite

soak: env ## 2,000 GRPO steps of the tiny model: does memory, or anything else, grow?
	R2REC_SOAK_STEPS=2000 $(PYTHON) -m pytest -q -s tests/train/test_soak.py -m slow

peers: $(PEERS)/installed ## create .peers, the environment of the benchmarks' peers (torch, transformers, peft, trl)

$(PEERS)/installed: requirements-peers.txt
	@for python in python3 python3.12 python3.11; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "error: Python 3.11 or newer (with venv) is missing: install it and run make again" >&2; exit 2; fi; \
	rm -f $@; \
	$$found -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: env peers ## every benchmark beside its peers, into bench/; an idle machine and half an hour
	$(PYTHON) -m launch.bench all --peers=$(PEERS)/bin/python --overwrite

clean: ## remove the environments and caches; runs/ and bench/ stay
	rm -rf $(VENV) $(PEERS) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
