# make demo | study | test | slow | slurm | check | audit: each sets up .venv by itself; the second time that costs nothing.

SHELL := /bin/sh
VENV := .venv
# Finished steps leave a mark named after what went in: where the project lies, and what is installed.
MADE := $(VENV)/.made-$(shell pwd | cksum | tr ' ' '-')
READY := $(VENV)/.ready-$(shell cat setup.py constraints.txt | cksum | tr ' ' '-')
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP = $(VENV)/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt
# The same with open_clip, mmdet and tensorboard on top, which the suite does not need.
AUDIT := .venv-audit
AUDIT_READY := $(AUDIT)/.ready-$(shell (pwd; cat setup.py constraints.txt constraints-audit.txt) | cksum | tr ' ' '-')
AUDIT_PATH := import sysconfig; print(sysconfig.get_path("purelib"))
DEMO := runs/demo
STUDY := runs/study
NOT_HERE := not (open_clip or mmdet or tensorboard or gpu or slurm)

.PHONY: help demo study test slow slurm test-gpu bench audit check format clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

$(MADE):
	@test -n "$(PYTHON)" || { echo "genloop: found no Python 3.11 or newer with venv; install python3.11 and" \
	  "python3.11-venv, or name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON); the first time takes some minutes"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(READY): $(MADE)
	@rm -f $(VENV)/.ready-*
	@$(PIP) setuptools wheel packaging torch==2.13.0
	@# deepspeed is built here, from Python alone: it looks for torch, compiles nothing, and as for a CPU it does not ask
	@# for CUDA's toolkit. What it runs on is decided when it runs.
	@DS_ACCELERATOR=cpu DS_BUILD_OPS=0 $(PIP) --no-build-isolation -e '.[dev,train,diffusion,corpus,editing,qlora]'
	@touch $@

test: $(READY) ## the test suite on all cores, without what takes long
	@$(VENV)/bin/python -m pytest -n auto -m "$(NOT_HERE) and not slow"

slow: $(READY) ## the tests that take long
	@$(VENV)/bin/python -m pytest -n auto -m "$(NOT_HERE) and slow"

slurm: $(READY) ## submitting to a real Slurm of two nodes, which is installed and started for it (root, apt)
	@! sh tests/slurm/install.sh || $(VENV)/bin/python -m pytest -m slurm tests/slurm

$(AUDIT_READY): $(READY)
	@echo "setting up $(AUDIT) on top of $(VENV)"
	@$(VENV)/bin/python -m venv --clear --without-pip $(AUDIT)
	@# It sees all of .venv; its own packages are pinned one by one, so that none brings another torch along.
	@echo "import site; site.addsitedir('$$($(VENV)/bin/python -c '$(AUDIT_PATH)')')" \
	  > $$($(AUDIT)/bin/python -c '$(AUDIT_PATH)')/base.pth
	@$(VENV)/bin/python -m pip --python $(AUDIT)/bin/python install -qq --disable-pip-version-check --no-deps \
	  -r constraints-audit.txt
	@touch $@

test-gpu: $(READY) ## the tests that need a GPU, on the GPU of this machine
	@$(VENV)/bin/python -m pytest -m gpu tests/gpu

bench: $(READY) ## every benchmark of speed in its short form, as one table
	@$(VENV)/bin/python -m benchmarks.short

audit: $(AUDIT_READY) ## detector and colours against mmdet and open_clip themselves, metrics in TensorBoard
	@$(AUDIT)/bin/python -m pytest -m "open_clip or mmdet or tensorboard" $$(grep -rlE 'mark\.(open_clip|mmdet|tensorboard)' tests --include='test_*.py')

check: $(READY) ## format, lint, types, layering
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest tests/test_layering.py tests/test_policy.py

format: $(READY) ## rewrite the code in the project's format
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

demo: $(READY) ## the main loop end to end on the CPU: prompts, images, verdicts, report
	@rm -rf $(DEMO)
	$(VENV)/bin/genloop pipeline demo out=$(DEMO) --procs 2
	@cat $(DEMO)/report/table.md

study: $(READY) ## the published table on the embedded world, trainings included: two cores, under an hour, goes on after a stop
	$(VENV)/bin/genloop pipeline study out=$(STUDY) --procs 2
	@cat $(STUDY)/report/table.md

clean: ## remove both .venv, the caches and the demo's runs (other runs stay)
	rm -rf $(VENV) $(AUDIT) $(DEMO) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
