# `make demo` and `make test` are all a newcomer needs; both make the environment first.
PYTHON ?= python3
VENV ?= .venv
# A version of its own, so that an installed build of torch (a CPU build, say) is kept: plain `torch` may take
# gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin

.PHONY: demo test paper lint unit install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[all,dev]"
	touch $@

demo: install
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

test: lint unit

# The paper's claims on nano: hours. Cut at any time, it goes on where it was; PAPER="--plan" says what it would do.
paper: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m parrot_benchmarks.paper --report docs/nano-results.md $(PAPER)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: install
	HF_HUB_OFFLINE=1 $(BIN)/pytest

clean:
	rm -rf runs bundles build *.egg-info
