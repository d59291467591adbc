# Every target is sugar for `python -m jobs.X`; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
READY := .venv/.installed
RUN := .venv/bin/python -m

# Set before Python starts: spinning OpenMP threads starve one another on a small shared machine.
export OMP_WAIT_POLICY = PASSIVE

# make dataset CONFIG=run.toml CORPUS=clips.csv VIDEOS=folder OUT=runs/mine RUNNER=local
# Taken from the command line only: a stray OUT in the environment moves nobody's run.
given = $(if $(filter command,$(origin $(1))),--$(2) '$($(1))')
ARGS = $(strip $(call given,CONFIG,config) $(call given,CORPUS,corpus) \
       $(call given,VIDEOS,videos) $(call given,OUT,out) $(call given,RUNNER,runner))

JOBS := corpus manifest parts probe appearance motion overlay score duplicates caption entities segment pair \
        samples shards dataset latents train generate evaluate report thresholds whatif verify prune status \
        repair compact retry rehearse weights plan
DEMO := --config jobs/configs/demo
.PHONY: help $(JOBS) submit aesthetic consistency demo test test-slow check bench bench-peers lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  with CONFIG=run.toml CORPUS=file-or-folder VIDEOS=folder-or-url OUT=run-folder RUNNER=ray|local"

demo: $(READY) runs/demo-corpus ## everything, small, on CPU: clips, shards, adapter, videos, scores, report
	$(RUN) jobs.dataset $(DEMO).toml $(call given,RUNNER,runner)
	@echo "against the corpus's known answers:"
	@$(RUN) jobs.corpus --out runs/demo-corpus --score runs/demo
	$(RUN) jobs.rehearse $(DEMO).toml
	$(RUN) jobs.latents $(DEMO).toml $(call given,RUNNER,runner)
	$(RUN) jobs.train $(DEMO)-base.toml
	$(RUN) jobs.train $(DEMO)-train.toml
	$(RUN) jobs.generate $(DEMO)-generate.toml
	$(RUN) jobs.evaluate --out runs/demo
	$(RUN) jobs.report $(DEMO).toml
	@$(RUN) jobs.summary --out runs/demo

# Under its name only when it is whole: a demo that was stopped while rendering renders again.
runs/demo-corpus: | $(READY)
	rm -rf $@.part
	$(RUN) jobs.corpus --out $@.part
	mv $@.part $@

dataset: ## from a manifest to training shards: all the steps below, in order
manifest: ## reads the corpus and says what is in it, and what is wrong with which row
parts: ## says which zips of the corpus are worth fetching
plan: ## what would keep CONFIG from running, and what it would take: hours, cost, yield, gigabytes
rehearse: ## runs every network of CONFIG once on a few clips: tiny ones, of random weights
weights: ## fetches what the networks of CONFIG are loaded from, ahead
probe: ## measures: what the container says (size, rate, length, codec)
appearance: ## measures: aesthetic score, cuts, consistency
motion: ## measures: how much moves
overlay: ## measures: how much of the picture text and watermarks cover
score: ## measures: probe, appearance, motion and overlay in one pass over the frames
duplicates: ## compares the clips that the scores let pass: of near copies one is kept
caption: ## measures: a caption by a vision-language model, where the corpus has none
entities: ## measures: what the caption says the clip shows
segment: ## measures: the mask of that entity on the first frame, and pair in the same pass
pair: ## measures: whether the subject is still there in the last training frame
samples: ## builds: one training sample for each kept clip
shards: ## builds: tar shards of the samples, and their index
latents: ## builds: samples encoded for training, in shards of their own
train: ## trains a base or an adapter on latents: CONFIG=jobs/configs/train.toml
generate: ## videos of a subject: CONFIG=generate.toml
evaluate: ## scores of the generated videos of run OUT
report: ## writes the report and the contact sheets of a run
thresholds: ## quantiles of the measures of run OUT, and what each threshold would keep
whatif: ## replays the thresholds of CONFIG over the facts of run OUT: who would flip
retry: ## measures clips of run OUT again that failed: ERRORS=timeout,crash
verify: ## looks at every byte of run OUT: facts, samples, latents, shards
repair: ## makes again what verify finds damaged or missing, and nothing else
compact: ## merges the small files of the facts of run OUT, as each pass does where they are many
prune: ## removes the tars that no index names
status: ## how far run OUT is
corpus: ## renders the synthetic corpus with known answers
retry: ARGS += $(call given,ERRORS,errors)
thresholds: ARGS += $(call given,MEASURE,measure)
$(JOBS): $(READY)
	$(RUN) jobs.$@ $(ARGS)

submit: $(READY) ## runs JOB (dataset, score, ...) of CONFIG on the Ray cluster of RAY_ADDRESS
	$(RUN) jobs.submit $(ARGS) $(or $(JOB),dataset)

aesthetic: ## measures: appearance, whose one pass finds both
consistency: ## measures: appearance, whose one pass finds both
aesthetic consistency: $(READY)
	$(RUN) jobs.appearance $(ARGS)

# Two at a time, file by file: many tests wait for processes of their own.
test: $(READY) ## all tests but the slow ones
	$(RUN) pytest -q -n 2 --dist loadfile -m 'not slow'

test-slow: $(READY) ## the tests that take minutes: compiled blocks, a whole run on an object store by Ray
	$(RUN) pytest -q -m slow

check: $(READY) ## what CI runs: lint, format, types, imports, then the tests
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) pyright
	.venv/bin/lint-imports --no-logo
	$(MAKE) --no-print-directory test

bench: $(READY) ## measures the speed of curation on this machine
	$(RUN) benchmarks.curation

bench-peers: $(READY) ## installs data-juicer in an environment of its own and measures it beside us
	test -e .venv-peers/.installed || { $(PYTHON) -m venv --clear .venv-peers \
	  && .venv-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt \
	  && touch .venv-peers/.installed; }
	$(RUN) benchmarks.peers

lock: ## renews requirements.lock from pyproject.toml
	rm -rf .venv/renewed
	$(PYTHON) -m venv .venv/renewed
	.venv/renewed/bin/python -c "import tomllib, pathlib; p = tomllib.loads(pathlib.Path('pyproject.toml').read_text())['project']; print(*p['dependencies'], *p['optional-dependencies']['check'], sep='\n')" > .venv/renewed/wanted
	.venv/renewed/bin/python -m pip install --disable-pip-version-check -r .venv/renewed/wanted
	{ grep '^#' requirements.lock; .venv/renewed/bin/python -m pip freeze; } > .venv/renewed/lock
	mv .venv/renewed/lock requirements.lock

# Made anew whenever the lock is newer, so that nothing that it no longer names is left behind.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "found '$$($(PYTHON) --version 2>&1 | head -1)', wanted Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "found $(PYTHON) without venv, wanted it: install python3-venv, or make PYTHON=/another/python3" >&2; exit 2; }
	@echo "installing requirements.lock into .venv (a minute or two, once)"
	@$(PYTHON) -m venv --clear .venv
	@$(RUN) pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $(READY)
