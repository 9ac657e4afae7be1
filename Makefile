# Two commands: `make repro` runs the experiment, `make test` the tests. No stage logic here: DVC is
# the only graph.
# VENV=/path/to/env uses an environment you have, and installs nothing.

ifdef VENV
BIN := $(VENV)/bin
else
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/stamp
VOCABULARY := .venv/share/whisper/multilingual.tiktoken
endif
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for one in python3 python3.13 python3.12 python3.11; do \
    $$one -c '$(SUPPORTED)' 2>/dev/null && echo $$one && break; done)
export PATH := $(BIN):$(PATH)
.DEFAULT_GOAL := help
.PHONY: help repository setup repro refresh test check bench harness overfit dashboard mlflow sync doctor \
    keep share prompt-language results fresh clean lock

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	    sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 26

# Said before minutes of installing: a folder from a ZIP is none.
repository:
	@git rev-parse || { echo 'want a git repository, for DVC needs one: git clone it;' \
	    'or here: git init, make setup, git add -A, git commit -m start'; exit 2; }

setup: repository $(STAMP) $(VOCABULARY)  ## make .venv from the lock, and a git identity where there is none
	@git config user.email >/dev/null || git config user.email earshot@localhost
	@git config user.name >/dev/null || git config user.name earshot

# The stamp is the lock's hash, so pip runs only when the lock changed, and a killed install is done
# again.
.venv/stamp: requirements.txt pyproject.toml
	@if ! sha256sum requirements.txt pyproject.toml | cmp -s - $@; then \
	    $(or $(PYTHON),false) -c '$(SUPPORTED)' || { \
	        echo 'want Python 3.11 to 3.13 (PYTHON=/path/to/python3.12 make setup)'; exit 2; } && \
	    $(PYTHON) -m venv .venv && \
	    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
	        -c requirements.txt -e '.[dev]' && \
	    sha256sum requirements.txt pyproject.toml > $@.part && mv $@.part $@; \
	else touch $@; fi

# Whisper's own vocabulary, which tests spell with, out of a package whose dependencies nobody
# needs. Setup does not fail for it.
.venv/share/whisper/multilingual.tiktoken: WHISPER := openai_whisper-20250625
.venv/share/whisper/multilingual.tiktoken: | .venv/stamp
	@mkdir -p $(@D) && cd $(@D) && \
	    { ../../bin/python -m pip download --quiet --disable-pip-version-check --retries 1 \
	        --no-deps --no-binary openai-whisper openai-whisper==$(WHISPER:openai_whisper-%=%) && \
	    tar -xzOf $(WHISPER).tar.gz $(WHISPER)/whisper/assets/$(@F) > $(@F).part && \
	    mv $(@F).part $(@F) && rm $(WHISPER).tar.gz; } || \
	    echo 'no openai-whisper to be had: tests of its vocabulary will be skipped'

repro: setup  ## run what is not up to date, then show the result
	@python -m asr.runtime.clone
	@dvc repro
	@python -m asr results

refresh: setup  ## read the source again, though no param changed, and run what depends on it
	@dvc repro --force --single-item download
	@dvc repro

test: setup  ## the whole suite, offline
	@python -m pytest --numprocesses auto

overfit: setup  ## eight training rows by heart, or exit 6: nothing is left of it (30 s)
	@python -m asr overfit data/features/train

harness: setup  ## NAME=x: shake the product; NAME=short a slice of each (10 min), none: the list
	@python -m harness $(NAME) $(COUNT)

bench: setup  ## side by side with peers, written to reports/bench (10 minutes)
	@python -m benchmarks.dashboard

check: setup  ## format, lint, types, tests
	@ruff format --check . && ruff check . && mypy && python -m pytest --numprocesses auto

dashboard: setup  ## the pages on http://127.0.0.1:8501: compare runs, hear the errors, transcribe
	@python -m streamlit run dashboard

mlflow: setup  ## the MLflow page on http://127.0.0.1:5000
	@MLFLOW_DISABLE_TELEMETRY=true mlflow ui --host 127.0.0.1 --port 5000 \
	    --backend-store-uri sqlite:///$(CURDIR)/mlflow.db

sync: setup  ## fill MLflow from the journals, after an outage
	@python -m asr sync

doctor: setup  ## explain what was left behind or would be lost; `earshot doctor --mend` mends it
	@python -m asr doctor

keep: setup  ## NAME=x: copy the present model to models/kept/x, its scores to reports/kept/x.json
	@python -m asr keep $(NAME)

share: setup  ## NAME=x: push an experiment to origin with its data, or say why that would stay
	@python -m asr share origin $(NAME)

prompt-language: setup  ## LANGUAGES="no da is": the best of these for one that Whisper lacks
	@python -m asr prompt-language $(LANGUAGES)

results: setup  ## the kept models as a Markdown table
	@python -m asr results --kept

fresh: setup  ## drop the checkpoints: the next training starts at step 0
	@rm -rf .cache/checkpoints

clean:  ## drop data and model (dvc checkout brings them back), features, checkpoints
	@rm -rf data models/finetuned .cache/shards .cache/heard .cache/checkpoints

lock:  ## write the lock from the present environment
	@python -m pip list --format freeze --exclude-editable | sed -E 's/\+[^ ]+//' | \
	    grep -vE '^(pip|setuptools|wheel|earshot)==' > requirements.txt
