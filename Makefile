# `make demo` and `make test` need Python 3.10 or later and nothing else: they make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-out
# One thread per library: the tests and the builds bring their own processes.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install test test-slow demo demo-gpu lint types wheel docs benchmark clean

help:
	@echo "make demo       raw datasets, UBHPD, three trained networks, their leaderboard"
	@echo "make demo-gpu   the same with a network of every kind"
	@echo "make test       run the tests"
	@echo "make lint types wheel   what the continuous integration checks besides"
	@echo "make docs       build the documents as a site, site/index.html; runs the notebooks (minutes)"
	@echo "make benchmark  time the builders against the usual loop"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.x ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: install
	$(BIN)/python -m pytest -n 2

test-slow: install
	$(BIN)/python -m pytest -m slow

demo: install
	$(BIN)/python -m ubhpd.demo --out $(OUT)

demo-gpu: install
	$(BIN)/python -m ubhpd.demo --out $(OUT) --gpu --heads 7000

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the package map of an editable install: it is shown the wheel's layout by links.
types: install
	rm -rf .view && mkdir -p .view/ubhpd
	for f in $(CURDIR)/ubhpd/*; do ln -sfn $$f .view/ubhpd/; done
	for room in builders metrics baselines; do ln -sfn $(CURDIR)/$$room .view/ubhpd/$$room; done
	MYPYPATH=.view $(BIN)/mypy -p ubhpd

wheel: install
	rm -rf build dist
	$(BIN)/python -m build --quiet --wheel
	$(BIN)/python tests/wheel_check.py dist

docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

benchmark: install
	$(BIN)/python benchmarks/build.py

clean:
	rm -rf $(VENV) .view build dist *.egg-info demo-out
