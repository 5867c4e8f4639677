# Each target first makes .venv and builds the package where needed (tools/setup_env.py).
#
#   make test    everything is tested        make bench   times the ops against eager PyTorch
#   make demo    trains on real images       make env     what is built, and what runs where
#   make lint    checks style and types      make clean   removes everything that make made
#
#   PYTHON=python3        a Python that has PyTorch keeps it; otherwise one is downloaded
#   TORCH=torch==2.13.0   what to download
#   ARGS=                 passed on to pytest, the demo or the benchmarks
#   VERBOSE=1             shows compiler commands and warnings
#   FUSED_MIXUP_CUDA, TORCH_CUDA_ARCH_LIST, MAX_JOBS, DEBUG, CUDA_HOME, CXX: see setup.py

PYTHON ?= python3
ARGS ?=
export TORCH VERBOSE
export PATH := $(CURDIR)/.venv/bin:$(PATH)

RUN := .venv/bin/python
CXX_FILES = find csrc tests \( -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' \) -print0

.PHONY: test lint format demo bench env clean lint-ruff lint-format lint-mypy lint-clang-format
.DEFAULT_GOAL := test

set-up-%:
	@$(PYTHON) tools/setup_env.py $(subst -, ,$*)

test: set-up-build-test-triton
	$(RUN) -m pytest $(ARGS)

demo: set-up-build-triton-demo
	$(RUN) -m examples.demo $(ARGS)

bench: set-up-build-triton-bench
	$(RUN) -m benchmarks.run $(ARGS)

env: set-up-build-triton
	$(RUN) -m fused_mixup.env

# All checks run, also after one has failed. A tool that is neither there nor to be had is named.
lint: set-up-lint
	@$(MAKE) --no-print-directory --keep-going lint-ruff lint-format lint-mypy lint-clang-format

check = if command -v $(1) > /dev/null; then $(2); else echo "LEFT OUT: $(1) is not installed"; fi

lint-ruff:
	@$(call check,ruff,ruff check .)
lint-format:
	@$(call check,ruff,ruff format --check .)
lint-mypy:
	@$(call check,mypy,mypy)
lint-clang-format:
	@$(call check,clang-format,$(CXX_FILES) | xargs -0 clang-format --dry-run -Werror)

format: set-up-lint
	ruff check --fix --quiet . ; ruff format .
	$(CXX_FILES) | xargs -0 clang-format -i

clean:
	rm -rf .venv build dist *.egg-info fused_mixup/*.so fused_mixup/_build_info.py
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
