# Everything sets itself up: only Python >= 3.11 and make are needed. No C compiler: every locked package is a wheel.
#
#   make demo        the whole study on the built-in model and images: a table here, files and report in out/demo
#   make docs        the documentation as a site, in build/site; a warning is an error
#   make test        lint, types and all tests of the core: what CI runs
#   make test-train  the tests that need torch or Keras, in an environment of their own
#   make wheel       sdist and wheel in dist/, the wheel installed by itself and tried; QUICK=--quick tries it less
#   make mutants     break the code in MUTANTS=20 places, one at a time, and see whether tests notice
#   make faults      kill commands FAULTS=20 times at each signal, FIRST=10 on; full disks, little memory, odd names
#   make fuzz        for MINUTES=30 give commands files that are nearly right; finds are kept in out/fuzz
#   make hostile     give every command every file of FOLDER=..., and show what took too long or ended badly
#   make newcomer    all examples of README and documentation, in order, as a newcomer would run them
#   make audit       look for known vulnerabilities in the locked versions
#   make lock        write requirements/*.txt anew, with the hashes of all files; UPGRADE=--upgrade chooses new versions

PYTHON ?= python3
OUT ?= out/demo
MUTANTS ?= 20
FAULTS ?= 20
FIRST ?= 0
MINUTES ?= 30
SEED ?= 0
UPGRADE ?=
QUICK ?=
FOLDER ?= ../shared/hostile
INSTALL = -m pip install --quiet --disable-pip-version-check --no-input
# Nothing is installed that has another hash than the lock says, and nothing that the lock does not name.
LOCKED = $(INSTALL) --require-hashes
EDITABLE = $(INSTALL) --no-deps --no-build-isolation --editable .
PYTHON_IS_NEW = import sys; sys.exit(sys.version_info < (3, 11) and "lowbit needs Python 3.11 or newer: make PYTHON=python3.12")
LOCK = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	--no-annotate --no-header --generate-hashes $(UPGRADE)

.PHONY: demo docs test test-train wheel lint newcomer mutants faults fuzz hostile audit lock clean

demo: .venv/.core
	.venv/bin/lowbit demo --out $(OUT)

test: lint
	.venv/bin/python -m pytest -n 2 --dist worksteal --durations=10 tests

# Two pages are made from the code: that of the commands before MkDocs begins, that of Python by docs/hooks.py.
docs: .venv/.core .venv-docs/.docs
	.venv/bin/python docs/commands_page.py > docs/reference/commands.md
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

newcomer: demo .venv/.test
	.venv/bin/python tests/newcomer.py

wheel: .venv/.core
	.venv/bin/python tests/wheel/run.py $(QUICK)

mutants: .venv/.test
	.venv/bin/python tests/mutation/run.py --count $(MUTANTS) --seed $(SEED)

faults: .venv/.test
	FAULTS=$(FAULTS) FIRST=$(FIRST) SEED=$(SEED) .venv/bin/python -m pytest tests/faults

fuzz: .venv/.test
	.venv/bin/python tests/fuzz/run.py --minutes $(MINUTES) --seed $(SEED)

hostile: .venv/.core
	.venv/bin/python tests/fuzz/hostile.py $(FOLDER)

# The list in requirements/advisories.json needs no network; pip-audit asks the package index, if that answers.
audit: .venv/.core .venv-audit/.audit
	.venv/bin/python requirements/audit.py
	for lock in requirements/*.txt; do .venv-audit/bin/pip-audit --progress-spinner off --disable-pip --no-deps \
		--requirement $$lock || exit 1; done

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

test-train: .venv-train/.train
	.venv-train/bin/python -m pytest -n 2 --dist worksteal tests/training tests/zoo tests/importing_train

# A stamp a stage, so that nothing is installed twice. The project itself is built from source: setuptools, no compiler.
.venv/bin/python:
	$(PYTHON) -c '$(PYTHON_IS_NEW)'
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/python requirements/core.txt requirements/build.txt pyproject.toml
	.venv/bin/python $(LOCKED) --only-binary :all: -r requirements/core.txt -r requirements/build.txt
	.venv/bin/python $(EDITABLE)
	touch $@

.venv/.test: .venv/.core requirements/test.txt
	.venv/bin/python $(LOCKED) --only-binary :all: -r requirements/test.txt
	touch $@

.venv-audit/.audit: requirements/audit.txt
	$(PYTHON) -c '$(PYTHON_IS_NEW)'
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(LOCKED) --only-binary :all: -r requirements/audit.txt
	touch $@

.venv-docs/.docs: requirements/docs.txt
	$(PYTHON) -c '$(PYTHON_IS_NEW)'
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(LOCKED) --only-binary :all: -r requirements/docs.txt
	touch $@

.venv-train/.train: requirements/train.txt requirements/torch.txt requirements/build.txt pyproject.toml
	$(PYTHON) -c '$(PYTHON_IS_NEW)'
	$(PYTHON) -m venv .venv-train
	.venv-train/bin/python $(LOCKED) -r requirements/train.txt -r requirements/build.txt
	.venv-train/bin/python $(INSTALL) -r requirements/torch.txt
	.venv-train/bin/python $(EDITABLE)
	touch $@

lock: .venv/.test
	.venv/bin/python $(INSTALL) uv
	$(LOCK) pyproject.toml --output-file requirements/core.txt
	$(LOCK) pyproject.toml requirements/test.in --output-file requirements/test.txt
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) requirements/audit.in --output-file requirements/audit.txt
	$(LOCK) requirements/docs.in --constraint requirements/test.txt --output-file requirements/docs.txt
	$(LOCK) pyproject.toml requirements/train.in --output-file requirements/train.txt
	awk '/^[^ ]/ {torch = /^(torch|nvidia|cuda|triton)/} !torch' requirements/train.txt > requirements/train.part
	mv requirements/train.part requirements/train.txt

clean:
	rm -rf .venv .venv-train .venv-audit .venv-docs out build dist
