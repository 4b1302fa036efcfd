#!/usr/bin/env bash
# Which of the homework's recipes gives the most robust net: trains each on MNIST, exports it, and studies all of them on
# the same test pictures. Ten minutes on two cores. Writes benchmarks/results/mnist-models.csv and mnist-study.json.
#   OUT    where runs and study go (default: runs/robust); finished runs are taken again
#   LIMIT  test pictures (default: 1000)
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/robust} LIMIT=${LIMIT:-1000}
RECIPES=(l2 l1 l1-from-l2 sgd momentum adagrad adam sgd-bn adam-bn)
train() {  # one core each: the order doesn't matter but for the run that starts from another one's weights
  local recipe=$1 start=()
  [ "$recipe" = l1-from-l2 ] && start=(--init "$OUT/l2")
  [ -e "$OUT/$recipe/model.onnx" ] && return
  hw4fast train mnist --recipe "$recipe" --threads 1 --out "$OUT/$recipe" "${start[@]}" >/dev/null
  hw4fast export "$OUT/$recipe" --onnx >/dev/null
}
export -f train
export OUT
mkdir -p "$OUT"
train l2
printf '%s\n' "${RECIPES[@]}" | xargs -P 2 -I{} bash -euo pipefail -c 'train {}'
hw4fast study mnist --model "${RECIPES[@]/#/$OUT/}" --limit "$LIMIT" --breaking 0 --out "$OUT/study" --resume ||
  hw4fast study mnist --model "${RECIPES[@]/#/$OUT/}" --limit "$LIMIT" --breaking 0 --out "$OUT/study"
cp "$OUT/study/models.csv" benchmarks/results/mnist-models.csv
sed "s|$OUT/||g; s|$PWD|.|g" "$OUT/study/study.json" >benchmarks/results/mnist-study.json
