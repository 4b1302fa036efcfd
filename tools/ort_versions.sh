#!/usr/bin/env bash
# Whether hw4fast's library loads and computes right in other releases of onnxruntime: for each, a virtual environment of
# its own under build/ort, and a fused file run there with the library and without it.
#   bash tools/ort_versions.sh [VERSION …]     default: the oldest that it takes, 1.24.4, 1.30.0 and the newest
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
set_up "[dev]"

file=build/ort/net.onnx
mkdir -p build/ort
say "a fused net of random weights"
"$PYTHON_IN_VENV" - "$file" <<'PY'
import sys
import onnx, torch
from hw4fast.exporter.fuse import fuse
from hw4fast.training.models.seed_cnn import seed_cnn

torch.manual_seed(0)
net = seed_cnn((1, 28, 28), 10, kernels="torch").eval()
program = torch.onnx.export(net, (torch.zeros(2, 1, 28, 28),), dynamo=True, opset_version=20, input_names=["input"],
                            output_names=["logits"], dynamic_shapes=({0: torch.export.Dim("n", min=1)},), verbose=False)
model = program.model_proto
assert fuse(model) == 1
model.ir_version = 10  # the oldest here reads no newer one
onnx.save(model, sys.argv[1])
PY
library=$("$PYTHON_IN_VENV" -c 'from hw4fast.kernels import ort_library; print(ort_library())')
for version in ${@:-1.19.2 1.24.4 1.30.0 newest}; do
  say "onnxruntime $version"
  [ -d "build/ort/$version" ] || "${PYTHON:-python3}" -m venv "build/ort/$version"
  wanted=onnxruntime && [ "$version" = newest ] || wanted=onnxruntime==$version
  "build/ort/$version/bin/python" -m pip install -q --disable-pip-version-check --upgrade "$wanted" numpy
  "build/ort/$version/bin/python" - "$file" "$library" <<'PY'
import ctypes, sys
import numpy as np, onnxruntime

file, library = sys.argv[1:]
answers = []
for registered in (False, True):
    options = onnxruntime.SessionOptions()
    if registered:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    x = np.random.Generator(np.random.PCG64(0)).standard_normal((7, 1, 28, 28)).astype(np.float32)
    answers.append(session.run(None, {"input": x})[0])
counted = ctypes.CDLL(library).hw4fast_ort_calls
counted.restype = ctypes.c_int64
ran = sum(counted(place) for place in range(3))
error = np.abs(answers[1] - answers[0]).max() / np.abs(answers[0]).max()
print(f"onnxruntime {onnxruntime.__version__}: {ran} block by the library, {error:.2g} of the largest logit apart")
assert ran == 1 and error < 1e-5
PY
done
