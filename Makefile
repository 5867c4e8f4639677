# Each target first makes .venv and builds the package where needed (tools/setup_env.py).
#
#   make test           runs all tests              make lint      checks style and types
#   make proofs         sanitizers, races, compiled code, long random runs
#   make mutants        tries wrong edits of the kernels, and names those that no test sees
#   make test-matrix    builds and runs on every PyTorch and Python that is supported
#   make fuzz           tests random inputs, 30 min make format    formats the code
#   make hostile        hostile arguments    make soak      trains for an hour, watches memory
#   make kernels        lists the compiled code of each kernel in build/kernels.md
#   make gpu            proves and times everything on a machine with a GPU, in 8 minutes
#   make gpu-wheel      packs, without a GPU, wheels for make gpu WHEEL=build/gpu-wheel
#   make bench          times the ops and their peers
#   make bench-full     times all dtypes, layouts and sizes
#   make report         makes a page of the results
#   make instructions   counts the CPU kernels' instructions, and compares with recorded counts
#   make wheel          builds and checks wheel and sdist in dist, without a GPU
#   make hub            lays out build/hub for the kernel hub of Hugging Face
#   make demo           trains on real images       make env       shows builds and backends
#   make examples       images, boxes, sound, text and a table, each against plain PyTorch
#   make study          what mixing does to accuracy, calibration and robustness
#   make docs           builds the documentation site, build/site
#   make clean          removes all files that make has made
#
#   PYTHON=python3        its PyTorch is reused; without one, PyTorch is downloaded
#   TORCH=torch==2.13.0   the PyTorch to download
#   ARGS=                 arguments for pytest, the demo, the benchmarks, ...
#   JOBS=2                processes that run the tests; default: one for each core, up to 8
#   OUT=                  the folder for the results of make gpu
#   WHEEL=                a folder of make gpu-wheel, or a wheel in it: make gpu compiles nothing
#   ARCH=9.0              the architecture that make gpu-wheel builds for
#   PYTHON_VERSION=3.12   the Python whose test packages make gpu-wheel packs
#   JSON=                 the file of make bench and make report
#   VERBOSE=1             shows compiler commands and warnings
#   FUSED_MIXUP_CUDA, TORCH_CUDA_ARCH_LIST, MAX_JOBS, DEBUG, CUDA_HOME, CXX: see setup.py

PYTHON ?= python3
ARGS ?=
export TORCH VERBOSE
export PATH := $(CURDIR)/.venv/bin:$(PATH)

RUN := .venv/bin/python
CXX_FILES = find csrc tests \( -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' \) -print0

.PHONY: test proofs mutants test-matrix docs lint format demo examples study bench bench-full report instructions env clean fuzz hostile soak kernels gpu gpu-wheel wheel hub lint-ruff lint-format lint-mypy lint-clang-format
.DEFAULT_GOAL := test

set-up-%:
	@$(PYTHON) tools/setup_env.py $(subst -, ,$*)

# Test files run in parallel where pytest-xdist is installed, in the order of tests/conftest.py.
JOBS ?= $(shell n=$$(nproc 2> /dev/null || echo 1); echo $$((n > 8 ? 8 : n)))

side_by_side = $(shell $(RUN) -c 'import xdist' 2> /dev/null && printf '%s' '-n $(JOBS) --dist loadfile --no-loadscope-reorder')

# Shared builds come first, outside the time limits of tests; with ARGS tests build them.
test: set-up-build-test-triton-demo
	$(if $(ARGS),,$(RUN) tests/prebuild.py tests)
	$(RUN) -m pytest $(side_by_side) $(ARGS)

proofs: set-up-build-test-triton-frameworks-upstreams
	$(if $(ARGS),,$(RUN) tests/prebuild.py proofs)
	$(RUN) -m pytest $(side_by_side) -m proof $(ARGS)

# ARGS="cuda walk" tries those that name both words.
mutants: set-up-build-test-triton
	$(RUN) tests/mutants $(ARGS)

# Each PyTorch has its own environment in build/matrix; ARGS="--torch 2.11.0 --python none".
test-matrix:
	$(PYTHON) tools/matrix.py $(ARGS)

fuzz: set-up-build-test-triton
	$(RUN) tests/fuzz.py $(ARGS)

# ARGS="--cases 200000 --seed 3"; a failure names its case.
hostile: set-up-build-test
	$(RUN) tests/hostile.py $(ARGS)

# ARGS="--minutes 15".
soak: set-up-build-test
	$(RUN) tests/soak.py $(ARGS)

kernels: set-up-triton
	$(RUN) tools/kernels.py $(ARGS)

# Without a network pip must not try for minutes. The time of set-up counts towards the limit.
gpu: export WHEEL := $(WHEEL)
gpu: export PIP_RETRIES := 0
gpu: export PIP_DEFAULT_TIMEOUT := 5
gpu: export OUT := $(OUT)
gpu: STARTED := $(shell date +%s)
gpu: $(if $(WHEEL),set-up-wheel,set-up-build-test-triton-bench)
	$(RUN) tools/gpu.py --since $(STARTED) $(if $(WHEEL),--installed) $(ARGS)

# Other programs set ARCH in the environment, so it is not read from there.
ARCH = 9.0
PYTHON_VERSION ?= 3.12

gpu-wheel:
	$(PYTHON) tools/gpu_wheel.py --arch "$(ARCH)" --python "$(PYTHON_VERSION)" $(ARGS)

wheel: set-up-release
	$(RUN) tools/release.py $(ARGS)

# ARGS=--build compiles the CPU library, without Nix.
hub: set-up-release
	$(RUN) tools/hub.py $(ARGS)

demo: set-up-build-triton-demo
	$(RUN) -m examples.demo $(ARGS)

# ARGS="--steps 50" goes to each of them.
examples: set-up-build-demo
	$(RUN) -m examples.segmentation $(ARGS)
	$(RUN) -m examples.detection $(ARGS)
	$(RUN) -m examples.audio $(ARGS)
	$(RUN) -m examples.text $(ARGS)
	$(RUN) -m examples.regression $(ARGS)

study: set-up-build-demo
	$(RUN) -m examples.study $(ARGS)

JSON ?= build/benchmarks.json

bench: set-up-build-triton-bench
	$(RUN) -m benchmarks.run --json $(JSON) $(ARGS)

bench-full: set-up-build-triton-bench
	$(RUN) -m benchmarks.run --full --json $(JSON) $(ARGS)

# ARGS="--readme README.md --measured docs/measured.md" writes their tables too.
report: set-up-build-bench
	$(RUN) -m benchmarks.report $(JSON) -o build/report $(ARGS)

instructions: set-up-build
	$(RUN) -m benchmarks.instructions $(ARGS)

# Builds pages, and the API from docstrings, offline; a warning or a broken link fails.
docs: set-up-docs
	$(RUN) -m zensical build --clean --strict

env: set-up-build-triton
	$(RUN) -m fused_mixup.env

# All checks run, also after one has failed. A tool that cannot be installed is named.
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
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
