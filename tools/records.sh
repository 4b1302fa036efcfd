#!/usr/bin/env bash
# Measures again every number that README.md and benchmarks/README.md quote, commits nothing: look at the difference, then commit it.
# Needs HW4FAST_DATA and a machine on which nothing else runs; takes about four and a half hours.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
set_up "[dev]"
python=$(cd "$(dirname "$PYTHON_IN_VENV")" && pwd)/python
results=$PWD/benchmarks/results scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ -n "${HW4FAST_DATA:-}" ]; then HW4FAST_DATA=$(cd "$HW4FAST_DATA" && pwd); fi
hw4fast() { (cd "$scratch" && "$python" -m hw4fast "$@"); }  # there, so that no record holds a path of this machine

for kernel in softmax_xent bce_with_logits conv_block conv_block_backward conv batch_norm_block gaussian_blur resize \
  train_step; do
  say "$kernel against torch"
  "$python" benchmarks/compare.py $kernel --record
done
for kernel in softmax_xent bce_with_logits conv_block conv_block_backward batch_norm_block gaussian_blur resize; do
  say "$kernel: every instruction set, and numba"
  "$python" benchmarks/compare.py $kernel --everything --record
done

say "digits: train, export, classify"
hw4fast train digits --epochs 20 --batch-size 50 --batch-norm --optimizer adam
hw4fast export runs/digits --onnx
hw4fast classify runs/digits/samples/00-6.png --model runs/digits --transform blur25 --transform rotate45 --top 3 \
  >"$results"/digits-classify.txt
cp "$scratch/runs/digits/run.json" "$results"/digits-run.json

say "what breaks ShuffleNet: the photographs of HW4FAST_DATA"
hw4fast study "$HW4FAST_DATA/photos/nips2017" --model shufflenet_v2_x1_0
cp "$scratch/studies/nips2017/heat.png" "$results"/photos-heat.png
cp "$scratch/studies/nips2017/breaking.png" "$results"/photos-breaking.png
cp "$scratch/studies/nips2017/transforms.csv" "$results"/photos-transforms.csv
cp "$scratch/studies/nips2017/models.csv" "$results"/photos-models.csv
sed "s|$HW4FAST_DATA/||g" "$scratch/studies/nips2017/study.json" >"$results"/photos-study.json
"$python" benchmarks/studying.py "$HW4FAST_DATA/photos/nips2017" --record

say "ImageNet-C's corruptions beside imagecorruptions, where IMAGECORRUPTIONS names a Python that has it"
if [ -n "${IMAGECORRUPTIONS:-}" ]; then
  "$python" benchmarks/corruptions.py --python "$IMAGECORRUPTIONS" --record || [ $? -eq 3 ]
fi

say "exported nets beside torch"
"$python" benchmarks/parity.py --record

say "whole processes"
"$python" benchmarks/cold_start.py "$scratch/runs/digits" --record

say "engines"
hw4fast bench runs/digits --seconds 5 --out "$results/bench.jsonl"

say "photographs, from files and on every engine"
hw4fast bench shufflenet_v2_x1_0 --batches 1,2,4,8,16,32 --out "$results/bench-shufflenet.jsonl"
hw4fast bench squeezenet1_1 --batches 1 --out "$results/bench-squeezenet.jsonl"

say "serving"
"$python" benchmarks/serving.py --record

say "damaged files"
"$python" tools/fuzz.py --record

say "mnist: ten epochs with every default"
hw4fast train mnist
cp "$scratch/runs/mnist/run.json" "$results"/mnist-run.json

say "homework: theory, the shortest time to 99 %, the table of MNIST on either kernels, Flowers, corn"
hw4fast reproduce theory fast
hw4fast reproduce mnist --seeds 3
hw4fast reproduce mnist --kernels torch --out homework-torch
hw4fast reproduce flowers corn
cp "$scratch/homework-torch/mnist/results.json" "$results/homework-mnist-torch.json"
for part in theory fast mnist flowers corn; do
  cp "$scratch/homework/$part/results.json" "$results/homework-$part.json"
done
cp "$scratch/homework/flowers/flowers.png" "$results/homework-flowers.png"

say "the pages"
"$python" tools/readme.py
