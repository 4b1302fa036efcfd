#!/usr/bin/env bash
# Measures again every number that the README quotes, commits nothing: look at the difference, then commit it.
# Needs HW4FAST_DATA or the network (for MNIST) and a machine on which nothing else runs; takes about six minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
set_up "[dev]"
hw4fast() { "$PYTHON_IN_VENV" -m hw4fast "$@"; }
results=benchmarks/results scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say "softmax_xent against torch"
"$PYTHON_IN_VENV" benchmarks/compare.py softmax_xent

say "digits: train, export, study"
hw4fast train digits --epochs 20 --batch-size 50 --batch-norm --optimizer adam --out "$scratch/digits"
hw4fast export "$scratch/digits" --onnx
hw4fast study digits --model "$scratch/digits" --out "$scratch/study"
cp "$scratch/digits/run.json" $results/digits-run.json
cp "$scratch/study/summary.csv" $results/digits-study.csv
cp "$scratch/study/accuracy.png" $results/digits-accuracy.png
cp "$scratch/study/transforms.png" $results/digits-transforms.png

say "whole processes"
"$PYTHON_IN_VENV" benchmarks/cold_start.py "$scratch/digits"

say "engines"
hw4fast bench "$scratch/digits" --seconds 5 --out $results/bench.jsonl

say "mnist: ten epochs with every default"
hw4fast train mnist --out "$scratch/mnist"
cp "$scratch/mnist/run.json" $results/mnist-run.json

say "README"
"$PYTHON_IN_VENV" tools/readme.py
