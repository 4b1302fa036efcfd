"""Pictures to a device and answers back through onnxruntime's I/O binding: the device's buffers are kept between calls.

`InferenceSession.run` takes new memory on the device for each batch, and copies it there on the way; here a batch of
the same shape is copied to where the last one lay. A tensor that lies on the device already is read where it lies.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}  # of a provider whose memory isn't ours
INDEX = 0  # of the device: the first that CUDA_VISIBLE_DEVICES shows
SHAPES = 4  # of batches, whose buffers each thread keeps


class Bound:
    """session: an InferenceSession with one input; device: onnxruntime's name of where its provider computes.

    Safe on several threads at a time: each has its own buffers.
    """

    def __init__(self, session: Any, device: str, input: str, output: str) -> None:
        self._session, self._device, self._input, self._output = session, device, input, output
        self._own = threading.local()

    def run(self, tensor: Any) -> np.ndarray:
        """The output for that input; what onnxruntime raises goes through.

        tensor: a NumPy array, copied to the device; or a torch tensor in the session's device's memory, which isn't:
        contiguous, and all that torch's current stream does to it is waited for. ValueError for one elsewhere.
        """
        binding = self._session.io_binding()
        if isinstance(tensor, np.ndarray):
            binding.bind_ortvalue_input(self._input, self._there(np.ascontiguousarray(tensor)))
        else:
            self.check_place(tensor)
            _wait_for(tensor)
            dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
            address = tensor.data_ptr()
            binding.bind_input(self._input, self._device, INDEX, dtype.type, list(tensor.shape), address)
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding)  # and waits for it: the tensor may go afterwards
        answer: np.ndarray = binding.copy_outputs_to_cpu()[0]
        return answer

    def check_place(self, tensor: Any) -> None:
        """ValueError for a torch tensor that isn't where the session computes."""
        place = tensor.device
        if place.type != self._device or (place.index or 0) != INDEX:
            where = self._device if self._device == "cpu" else f"{self._device}:{INDEX}"
            raise ValueError(f"the tensor is on {place}, but the model runs on {where}; move it there")

    def _there(self, tensor: np.ndarray) -> Any:
        """The tensor on the device."""
        from onnxruntime import OrtValue

        if not hasattr(self._own, "buffers"):
            self._own.buffers = {}
        buffers, key = self._own.buffers, (tensor.shape, tensor.dtype.str)
        value = buffers.pop(key, None)
        if value is None:
            value = OrtValue.ortvalue_from_numpy(tensor, self._device, INDEX)
        else:
            value.update_inplace(tensor)
        buffers[key] = value  # the last is the one used last
        if len(buffers) > SHAPES:
            del buffers[next(iter(buffers))]
        return value


def _wait_for(tensor: Any) -> None:
    """onnxruntime computes on a stream of its own, which knows nothing of what torch's has begun."""
    if tensor.is_cuda:
        sys.modules["torch"].cuda.current_stream(tensor.device).synchronize()
