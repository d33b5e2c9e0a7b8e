# make quickstart: install into .venv and run the main job.   make test: install and run the whole suite.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check docs clean

quickstart: .venv/installed
	$(BIN)/vrft run recipes/quickstart.yaml --resume

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/installed
	$(BIN)/python docs/reference.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
