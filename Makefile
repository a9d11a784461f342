# Two commands: `make demo` runs the main job, `make test` passes the tests. Each sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Compiled bytecode is kept, or every process that a test starts compiles torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test nightly bounds checkpoint lint format pins venv clean
.DEFAULT_GOAL := demo

demo: venv  ## train jointly on the embedded set, evaluate, draw; about ten minutes on two cores
	$(BIN)/yolo9000 train --joint --out runs/demo

test: venv lint  ## lint, format, types, tests; what was skipped, and why
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -rs -n 2

nightly: venv  ## the slow proofs too
	$(BIN)/python -m pytest

bounds: venv  ## joint training between detection data alone and an oracle with every box
	$(BIN)/yolo9000 bounds --out runs/bounds

checkpoint: venv  ## train the checkpoint that ships (hours on two cores)
	$(BIN)/python tools/make_checkpoint.py

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pins: venv  ## renew requirements.txt: versions alone, for every platform, no address
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-annotate --no-header --output-file requirements.txt pyproject.toml

venv: $(VENV)/ready

# Made again when the dependencies or the pins change; the torch of another build of Python is never touched.
$(VENV)/ready: pyproject.toml requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
