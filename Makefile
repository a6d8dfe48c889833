# `make train` and `make test` do everything on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train test test-slow test-kernels test-browser screenshots check docs model bench clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,lora,gym,browser,optimizers]"
	touch $@

train: $(VENV)/.ready  ## self-train the embedded model
	$(BIN)/selftrain train $(ARGS)

test: $(VENV)/.ready check  ## style, types, tests: a process a core, each with one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: $(VENV)/.ready  ## what takes minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

test-kernels: $(VENV)/.ready  ## Triton kernels without a GPU: interpreted (which needs an older numpy), and compiled for two generations of cards
	$(BIN)/python -m pip install --quiet --no-deps --target build/triton triton==3.6.0 numpy==2.2.6
	TRITON_INTERPRET=1 PYTHONPATH=build/triton $(BIN)/python -m pytest tests/policies/test_torch_kernels.py $(ARGS)
	PYTHONPATH=build/triton $(BIN)/python -m pytest tests/policies/test_torch_kernels_compile.py $(ARGS)

test-browser: $(VENV)/.ready  ## the live page in headless Chromium, which is installed when it is missing
	scripts/install_browser.sh
	$(BIN)/python -m pytest -m "browser and not slow" tests/browser $(ARGS)

screenshots: $(VENV)/.ready  ## the same, and the pictures in docs/img
	scripts/install_browser.sh
	$(BIN)/python -m pytest -m "browser and not slow" tests/browser --screenshots

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.ready  ## regenerate the generated pages
	$(BIN)/python scripts/make_docs.py

model: $(VENV)/.ready  ## make the embedded models again
	$(BIN)/python scripts/make_model.py

bench: $(VENV)/.ready  ## the README's learning result: label-free against true answers, 3 seeds
	$(BIN)/python benchmarks/learning.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
