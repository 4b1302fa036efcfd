#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, nvcc and torch, network or not: builds with what is there, runs the tests that need a
# GPU, the kernels under compute-sanitizer, then the benchmarks, within 8 minutes; a short table last.
#   OUT           where records and logs go (default: gpu-check)
#   HW4FAST_DATA  for the training on MNIST, and models/squeezenet1_1.onnx for inference, which needs onnxruntime-gpu
#   PARTS         of: build tests sanitizer benchmarks (default: all)
#   SECONDS_IN_ALL  after which no benchmark goes on (default: 470)
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu-check}
PARTS=${PARTS:-build tests sanitizer benchmarks}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
begun=$(date +%s)
export PYTHONPATH=${PYTHONPATH:-.} PYTHONUNBUFFERED=1
say() { printf '\n== %s (%s s)\n' "$*" "$(($(date +%s) - begun))"; }
wants() { [[ " $PARTS " == *" $1 "* ]]; }
failed=()
nvidia-smi -L >/dev/null 2>&1 || { echo "error: nvidia-smi finds no NVIDIA GPU here, there is nothing to check" >&2; exit 1; }
"$PYTHON" -c "import torch; assert torch.cuda.is_available()" 2>/dev/null ||
  { echo "error: $PYTHON has no torch that finds the GPU" >&2; exit 1; }

if wants build; then
  say "building for this machine's GPU"
  arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  [ "$arch" = 90 ] && arch=90a
  export HW4FAST_CUDA=1 HW4FAST_CUDA_ARCHS=${HW4FAST_CUDA_ARCHS:-$arch} MAX_JOBS=${MAX_JOBS:-$(nproc)}
  "$PYTHON" -m pip install -q --no-build-isolation --no-deps --config-settings editable_mode=compat -e . \
    >"$OUT/build.log" 2>&1 || { tail -30 "$OUT/build.log"; exit 1; }
fi
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | tee "$OUT/gpu.txt"
"$PYTHON" -m hw4fast info | tail -30

tools=()
if wants sanitizer; then tools=(memcheck racecheck); fi
for tool in "${tools[@]}"; do  # beside the tests: nothing is timed yet
  (timeout "${SANITIZER_SECONDS:-120}" compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" \
    tests/gpu/sanitized.py; echo "exit code $?") >"$OUT/$tool.log" 2>&1 &
done

if wants tests; then
  say "tests"
  workers=()
  "$PYTHON" -c "import xdist" 2>/dev/null && workers=(-n "${TEST_WORKERS:-$(($(nproc) < 10 ? $(nproc) : 10))}")
  # -v: what fails is named at once, should the time run out
  timeout "${TEST_SECONDS:-180}" "$PYTHON" -m pytest -v tests/gpu -p no:cacheprovider --tb=short "${workers[@]}" \
    >"$OUT/tests.log" 2>&1 || failed+=("tests")
  grep -E "(FAILED|ERROR) tests/" "$OUT/tests.log" | sort -u | head -40
  tail -1 "$OUT/tests.log"
fi

wait
for tool in "${tools[@]}"; do
  say "compute-sanitizer, $tool"
  tail -3 "$OUT/$tool.log"
  grep -qx "exit code 0" "$OUT/$tool.log" || failed+=("$tool")
done

if wants benchmarks; then
  for part in ${BENCHMARKS:-gpu gpu_conv gpu_blur gpu_resize gpu_inference gpu_study gpu_training gpu_parts}; do
    [ -e "benchmarks/$part.py" ] || continue
    left=$((${SECONDS_IN_ALL:-470} - ($(date +%s) - begun)))
    [ "$left" -gt 15 ] || { failed+=("$part: no time left"); continue; }
    say "benchmarks/$part.py"
    timeout "$left" "$PYTHON" "benchmarks/$part.py" --json "$OUT/$part.json" 2>&1 | tee "$OUT/$part.log" ||
      failed+=("$part")
  done
  "$PYTHON" tools/gpu_record.py "$OUT"
fi

say "done"
if [ ${#failed[@]} -gt 0 ]; then printf 'failed: %s\n' "${failed[*]}"; exit 1; fi
