#!/usr/bin/env bash
# Which of the homework's recipes gives the most robust net: trains each on MNIST with several seeds, exports the nets, and
# studies all of them on the same test pictures. Some 40 minutes on two cores. Writes benchmarks/results/mnist-models.csv
# and mnist-study.json.
#   OUT    where runs and study go (default: runs/robust); what is finished there is taken again
#   LIMIT  test pictures (default: 1000)
#   SEEDS  (default: 0 1 2)
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/robust} LIMIT=${LIMIT:-1000}
read -ra SEEDS <<<"${SEEDS:-0 1 2}"
RECIPES=(l2 l1 l1-from-l2 sgd momentum adagrad adam sgd-bn adam-bn)
train() {  # $1: seed/recipe; one core each: the order doesn't matter but for the runs that start from another one's weights
  local out=$OUT/seed$1 start=()
  [ "${1#*/}" = l1-from-l2 ] && start=(--init "${out%/*}/l2")
  [ -e "$out/model.onnx" ] && return
  hw4fast train mnist --recipe "${1#*/}" --seed "${1%/*}" --threads 1 --out "$out" "${start[@]}" >/dev/null
  hw4fast export "$out" --onnx >/dev/null
}
export -f train
export OUT
each() { xargs -P 2 -I{} bash -euo pipefail -c 'train {}'; }
runs=()
for seed in "${SEEDS[@]}"; do runs+=("${RECIPES[@]/#/$seed/}"); done
printf '%s/l2\n' "${SEEDS[@]}" | each
printf '%s\n' "${runs[@]}" | each
resume=()
if grep -qs unfinished "$OUT/study/study.json"; then resume=(--resume); fi
hw4fast study mnist --model "${runs[@]/#/$OUT/seed}" --limit "$LIMIT" --breaking 0 --out "$OUT/study" "${resume[@]}"
for name in models.csv study.json; do
  sed "s|$OUT/||g; s|$PWD|.|g" "$OUT/study/$name" >"benchmarks/results/mnist-$name"
done
