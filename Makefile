# `make demo` and `make test` need Python 3.10 or later and nothing else: they make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-out
# make test-lowest: a Python 3.10 that is on the PATH or that pyenv has; otherwise uv looks for one and may download it.
LOWEST := .venv-lowest
LOWEST_PYTHON ?= $(firstword $(shell python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null) \
	$(lastword $(wildcard $(PYENV_ROOT)/versions/3.10.*/bin/python)) 3.10)
# One thread per library: the tests and the builds bring their own processes.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: .FORCE help install hooks test test-slow test-portable test-lowest demo demo-gpu lint types wheel tables docs notebooks benchmark clean

help:
	@echo "make demo       raw datasets, UBHPD, three trained networks, their leaderboard"
	@echo "make demo-gpu   the same with a network of every kind"
	@echo "make test       run the tests"
	@echo "make test-portable   run the tests once with the kernels of each kind of processor, and with 1 and 2 threads"
	@echo "make test-lowest   run the tests with the lowest versions of all dependencies, on Python 3.10"
	@echo "make lint types wheel   what the continuous integration checks besides"
	@echo "make docs       build the documents as a site, site/index.html"
	@echo "make tables     write the tables and pages of the documents that are made from the cards of the code"
	@echo "make notebooks  run the notebooks and store what they show in their files (minutes)"
	@echo "make benchmark  time the builders against the usual loop"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=python3.x ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

hooks: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pre-commit
	$(BIN)/python -m pre_commit install

test: install
	$(BIN)/python -m pytest -n 2

test-slow: install
	$(BIN)/python -m pytest -m slow

test-portable: install
	$(BIN)/python tests/processors.py -n 2

test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -n 2

# uv is the only installer that can choose the lowest versions. UV_TORCH_BACKEND=cpu makes it take the CPU build of torch.
$(LOWEST)/.installed: pyproject.toml
	rm -rf $(LOWEST) $(LOWEST)-uv
	$(PYTHON) -m venv $(LOWEST)-uv
	$(LOWEST)-uv/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)-uv/bin/uv venv --quiet --python $(LOWEST_PYTHON) $(LOWEST)
	$(LOWEST)-uv/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[all,dlib,test]'
	@touch $@

demo: install
	$(BIN)/python -m ubhpd.demo --out $(OUT)

demo-gpu: install
	$(BIN)/python -m ubhpd.demo --out $(OUT) --gpu --heads 7000

lint: install .view
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .view && $(CURDIR)/$(BIN)/lint-imports ../pyproject.toml
	$(BIN)/python -m ubhpd.reports.doc_tables --check

tables: install
	$(BIN)/python -m ubhpd.reports.doc_tables

types: install .view
	MYPYPATH=.view $(BIN)/mypy -p ubhpd

# mypy and import-linter cannot follow the package map of an editable install, and import-linter follows no links: both
# read a copy of the code in the layout of the wheel.
.view: .FORCE
	rm -rf .view && mkdir .view && cp -pR ubhpd .view/ubhpd && cp -pR builders metrics baselines .view/ubhpd

.FORCE:

wheel: install
	rm -rf build dist
	$(BIN)/python -m build --quiet --wheel
	$(BIN)/python tests/wheel_check.py dist

docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

notebooks: install
	$(BIN)/python notebooks/execute.py

benchmark: install
	$(BIN)/python benchmarks/build.py

clean:
	rm -rf $(VENV) $(LOWEST) $(LOWEST)-uv .view build dist *.egg-info demo-out
