# Everything sets itself up: only Python >= 3.11 and make are needed. No C compiler: every locked package is a wheel.
#
#   make demo        the whole study on the built-in model and images: a table here, files and report in out/demo
#   make test        lint, types and all tests of the core: what CI runs
#   make test-train  the tests that need torch, in an environment of their own
#   make mutants     break the code in MUTANTS=20 places, one at a time, and see whether tests notice
#   make faults      kill commands FAULTS=20 times at each signal; full disks, little memory, odd names
#   make fuzz        for MINUTES=30 give commands files that are nearly right; finds are kept in out/fuzz
#   make lock        choose new versions for requirements/*.txt

PYTHON ?= python3
OUT ?= out/demo
MUTANTS ?= 20
FAULTS ?= 20
MINUTES ?= 30
SEED ?= 0
INSTALL = -m pip install --quiet --disable-pip-version-check --no-input
PYTHON_IS_NEW = import sys; sys.exit(sys.version_info < (3, 11) and "lowbit needs Python 3.11 or newer: make PYTHON=python3.12")
LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	--no-annotate --no-header

.PHONY: demo test test-train lint mutants faults fuzz lock clean

demo: .venv/.core
	.venv/bin/lowbit demo --out $(OUT)

test: lint
	.venv/bin/python -m pytest -n 2 --dist worksteal --durations=10 tests

mutants: .venv/.test
	.venv/bin/python tests/mutation/run.py --count $(MUTANTS) --seed $(SEED)

faults: .venv/.test
	FAULTS=$(FAULTS) SEED=$(SEED) .venv/bin/python -m pytest tests/faults

fuzz: .venv/.test
	.venv/bin/python tests/fuzz/run.py --minutes $(MINUTES) --seed $(SEED)

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test-train: .venv-train/.train
	.venv-train/bin/python -m pytest -n 2 --dist worksteal tests/training tests/zoo tests/graph/test_load_torch.py

# A stamp a stage, so that nothing is installed twice. The project itself is built from source: setuptools, no compiler.
.venv/bin/python:
	$(PYTHON) -c '$(PYTHON_IS_NEW)'
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/python requirements/core.txt pyproject.toml
	.venv/bin/python $(INSTALL) --only-binary :all: -r requirements/core.txt
	.venv/bin/python $(INSTALL) --no-deps --editable .
	touch $@

.venv/.test: .venv/.core requirements/test.txt
	.venv/bin/python $(INSTALL) --only-binary :all: -r requirements/test.txt
	touch $@

.venv-train/.train: requirements/train.txt pyproject.toml
	$(PYTHON) -c '$(PYTHON_IS_NEW)'
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/python $(INSTALL) -r requirements/train.txt
	.venv-train/bin/python $(INSTALL) --no-deps --editable .
	touch $@

lock: .venv/.test
	.venv/bin/python $(INSTALL) uv
	$(LOCK) pyproject.toml --output-file requirements/core.txt
	$(LOCK) pyproject.toml requirements/test.in --output-file requirements/test.txt
	$(LOCK) pyproject.toml requirements/train.in | grep -v -E '^(nvidia|cuda|triton)' > requirements/train.txt

clean:
	rm -rf .venv .venv-train out build
