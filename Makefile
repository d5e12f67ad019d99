# Each target sets everything up by itself, in .venv, with the versions that constraints.txt pins.
PYTHON ?= python3
BIN := .venv/bin
# Two threads on two busy cores wait for each other; one is faster there. `ropewalk demo` finds its own best number.
export OMP_NUM_THREADS ?= 1
# Two files of tests at a time, each in a process of its own.
BESIDE := --numprocesses 2 --dist loadfile

.PHONY: demo test test-all lint gpu-test readers docs site lab results clean

demo: .venv/installed
	env -u OMP_NUM_THREADS $(BIN)/ropewalk demo --out demo --overwrite --yes

test: .venv/installed-dev lint
	bash scripts/install-chromium.sh
	$(BIN)/python -m pytest -m "not slow" $(BESIDE)

# With the tests that take minutes each; before a release, or before a change of what they look at is called done.
test-all: .venv/installed-dev lint
	bash scripts/install-chromium.sh
	$(BIN)/python -m pytest $(BESIDE)

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/lint-imports --no-cache

gpu-test: .venv/installed-dev
	$(BIN)/python -m pytest tests/gpu

# What transformers 4 and 5, llama.cpp, vLLM, MLX, peft and lm-eval make of our checkpoints; environments of their own in .readers (8 GB, once).
readers: .venv/installed-dev
	PYTHON="$(PYTHON)" bash tests/readers/environments.sh
	$(BIN)/python tests/readers/run.py --table docs/readers.md

docs: .venv/installed-dev
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_rooms.py
	$(BIN)/python docs/make_families.py

# The documentation as a site, in site/; a warning is an error, and nothing is fetched. It needs neither torch nor the package: `python -m http.server -d site`
# shows it.
site: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# The lab (lab/README.md): its rows, on every GPU there is (`LEVEL=a`, one level; `RECORDS=DIR`, elsewhere than in lab/records); and what is drawn of them, on
# any machine.
export MODELS ?= models
export DATA ?= data
lab: .venv/installed
	test -d "$(MODELS)/smollm2-135m" || { $(BIN)/pip install -q -c constraints.txt -e '.[export]' && $(BIN)/python recipes/real_models/fetch.py "$(MODELS)"; }
	env -u OMP_NUM_THREADS $(BIN)/python lab/run.py $(if $(LEVEL),--level $(LEVEL)) $(if $(RECORDS),--records "$(RECORDS)")

results: .venv/installed
	$(BIN)/python lab/results.py $(if $(RECORDS),--records "$(RECORDS)")

.venv/installed: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[eval,report]'
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

.venv/installed-docs: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf .venv .readers demo site
