# make quickstart: install into .venv and run the main job.   make test: install and run the whole suite.
# .venv/train and .venv/dev are empty files that say which extra of the package is installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check docs clean

quickstart: .venv/train
	$(BIN)/vrft run recipes/quickstart.yaml --resume

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev
	$(BIN)/python docs/reference.py

.venv/train .venv/dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(@F)]'
	touch $@

clean:
	rm -rf .venv runs
