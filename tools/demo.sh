#!/usr/bin/env bash
# From a fresh clone to a report: sets up .venv, trains on real handwritten digits, exports, classifies, studies.
# After the installation it takes less than a minute on two cores and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
set_up ""
hw4fast() { "$PYTHON_IN_VENV" -m hw4fast "$@"; }

out=demo number=2
while [ -e "$out" ]; do out=demo-$number number=$((number + 1)); done
begun=$SECONDS

say "1/5 training a small net on 1,437 handwritten digits (hw4fast train)"
hw4fast train digits --epochs 20 --batch-size 50 --batch-norm --optimizer adam --out "$out/run"

say "2/5 writing it as one ONNX file, checked against torch (hw4fast export)"
hw4fast export "$out/run" --onnx "$out/digits.onnx"

say "3/5 one digit, clean and blurred (hw4fast classify)"
picture=$(ls "$out"/run/samples/*.png | head -n 1)
hw4fast classify "$picture" --model "$out/digits.onnx" --transform blur5 --transform blur25 --transform rotate45 \
  --top 3 --save-transformed "$out/seen"

say "4/5 every test digit under every transform (hw4fast study)"
hw4fast study digits --model "$out/digits.onnx" --out "$out/study"

say "5/5 how fast it is on each engine (hw4fast bench)"
hw4fast bench "$out/run" --seconds 1

say "done in $((SECONDS - begun)) s; look at"
for file in study/report.html study/accuracy.png study/transforms.png run/curves.png run/contact_sheet.png; do
  printf '   %s\n' "$out/$file"
done
