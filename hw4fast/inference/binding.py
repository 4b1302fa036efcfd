"""Pictures to a device and answers back through onnxruntime's I/O binding: the device's buffers are kept between calls.

`InferenceSession.run` takes new memory on the device for each batch, and copies it there on the way; here a batch of
the same shape is copied to where the last one lay.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}  # of a provider whose memory isn't ours
SHAPES = 4  # of batches, whose buffers each thread keeps


class Bound:
    """session: an InferenceSession with one input; device: onnxruntime's name of where its provider computes.

    Safe on several threads at a time: each has its own buffers.
    """

    def __init__(self, session: Any, device: str, input: str, output: str) -> None:
        self._session, self._device, self._input, self._output = session, device, input, output
        self._own = threading.local()

    def run(self, tensor: np.ndarray) -> np.ndarray:
        """The output for that input; what onnxruntime raises goes through."""
        binding = self._session.io_binding()
        binding.bind_ortvalue_input(self._input, self._there(np.ascontiguousarray(tensor)))
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding)
        answer: np.ndarray = binding.copy_outputs_to_cpu()[0]
        return answer

    def _there(self, tensor: np.ndarray) -> Any:
        """The tensor on the device."""
        from onnxruntime import OrtValue

        if not hasattr(self._own, "buffers"):
            self._own.buffers = {}
        buffers, key = self._own.buffers, (tensor.shape, tensor.dtype.str)
        value = buffers.pop(key, None)
        if value is None:
            value = OrtValue.ortvalue_from_numpy(tensor, self._device, 0)
        else:
            value.update_inplace(tensor)
        buffers[key] = value  # the last is the one used last
        if len(buffers) > SHAPES:
            del buffers[next(iter(buffers))]
        return value
