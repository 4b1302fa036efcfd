"""Train a small net, export one self-describing ONNX file, run it fast, find out what breaks it."""
