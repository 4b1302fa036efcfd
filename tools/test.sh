#!/usr/bin/env bash
# Everything that must hold: style, types, tests. Sets up .venv with the development tools.
# Tests that need real data read HW4FAST_DATA and skip with a reason without it.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
set_up "[dev]"
run() { "$PYTHON_IN_VENV" -m "$@"; }

say "style (ruff, clang-format) and types (mypy)"
run ruff check .
run ruff format --check .
"$(dirname "$PYTHON_IN_VENV")/clang-format" --dry-run -Werror csrc/*.h csrc/*.inl csrc/*.cpp csrc/*.cu csrc/*.cuh
MYPY_CACHE_DIR=$(dirname "$PYTHON_IN_VENV")/../hw4fast-mypy run mypy hw4fast  # kept for the next checkout

isas=$("$PYTHON_IN_VENV" -c 'from hw4fast.kernels import isas; print(*isas()[1:][-1:])')  # a failure ends the script here
for isa in $isas; do  # the least; the kernels' own tests take every one, and torch compiles for any alike
  say "torch's and onnxruntime's operators, with HW4FAST_ISA=$isa"
  HW4FAST_ISA=$isa run_tests --ignore tests/nn/test_threads.py tests/nn tests/exporter/test_fuse.py \
    -k "not compile and not opcheck and not autocast"
done

say "all tests"
run_tests --durations=10 "$@"
