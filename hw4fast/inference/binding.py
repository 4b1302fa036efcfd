"""Tensors that lie on a device through onnxruntime's I/O binding, read where they lie, and CUDA graphs' fixed buffers.

Arrays in host memory go through `InferenceSession.run`: an H100 took as long to copy them to a buffer that is kept.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}  # of a provider whose memory isn't ours
INDEX = 0  # of the device: the first that CUDA_VISIBLE_DEVICES shows
SHAPES = 4  # of batches; for more, no CUDA graph is recorded
NO_GRAPH = -1  # onnxruntime's number for a run that neither records nor replays one


@dataclass(frozen=True)
class _Graph:
    """What a CUDA graph reads and writes, and must stay where it is: an OrtValue or a torch tensor, and an OrtValue."""

    binding: Any
    input: Any
    output: Any
    options: Any


class Bound:
    """session: an InferenceSession with one input; device: onnxruntime's name of where its provider computes.

    Safe on several threads at a time. Where the session records CUDA graphs (`enable_cuda_graph`), one call runs at a
    time.
    """

    def __init__(self, session: Any, device: str, input: str, output: str) -> None:
        self._session, self._device, self._input, self._output = session, device, input, output
        options = session.get_provider_options().get(session.get_providers()[0], {})
        self._recording = options.get("enable_cuda_graph") == "1"
        self._graphs: dict[Any, _Graph] = {}
        self._lock = threading.Lock()

    def run(self, tensor: Any) -> np.ndarray:
        """The output for that input; what onnxruntime raises goes through.

        tensor: a NumPy array, copied to the device; or a torch tensor in the session's device's memory, which isn't:
        contiguous, and all that torch's current stream does to it is waited for. ValueError for one elsewhere.
        """
        if isinstance(tensor, np.ndarray):
            tensor = np.ascontiguousarray(tensor)
        else:
            self.check_place(tensor)
        return self._replayed(tensor) if self._recording else self._once(tensor)

    def _once(self, tensor: Any, graph: int | None = None) -> np.ndarray:
        answer: np.ndarray
        if isinstance(tensor, np.ndarray) and graph is None:
            (answer,) = self._session.run([self._output], {self._input: tensor})
            return answer
        binding = self._session.io_binding()
        if isinstance(tensor, np.ndarray):
            binding.bind_cpu_input(self._input, tensor)
        else:
            _wait_for(tensor)
            self._bind(binding, tensor)
        binding.bind_output(self._output, "cpu")
        self._session.run_with_iobinding(binding, _graph_options(graph))  # and waits: the tensor may go afterwards
        (answer,) = binding.copy_outputs_to_cpu()
        return answer

    def _replayed(self, tensor: Any) -> np.ndarray:
        """By the graph of its shape, which reads and writes where it did when it was recorded."""
        there = not isinstance(tensor, np.ndarray)
        key = tuple(tensor.shape), str(tensor.dtype), there
        with self._lock:
            if key not in self._graphs:
                answer = self._once(tensor, NO_GRAPH)
                if len(self._graphs) < SHAPES:
                    self._graphs[key] = self._graph(tensor, answer, 1 + len(self._graphs))
                return answer
            graph = self._graphs[key]
            if there:
                graph.input.copy_(tensor)
                _wait_for(tensor)
            else:
                graph.input.update_inplace(tensor)
            self._session.run_with_iobinding(graph.binding, graph.options)
            return np.array(graph.output.numpy())  # the CPU's is a view

    def _graph(self, tensor: Any, answer: np.ndarray, number: int) -> _Graph:
        """To be recorded by its first run. answer: as its output will be."""
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        if isinstance(tensor, np.ndarray):
            input = OrtValue.ortvalue_from_numpy(tensor.copy(), self._device, INDEX)  # the CPU's is the array
            binding.bind_ortvalue_input(self._input, input)
        else:
            input = tensor.clone()
            self._bind(binding, input)
        output = OrtValue.ortvalue_from_shape_and_type(list(answer.shape), answer.dtype.type, self._device, INDEX)
        binding.bind_ortvalue_output(self._output, output)
        return _Graph(binding, input, output, _graph_options(number))

    def _bind(self, binding: Any, tensor: Any) -> None:
        """The memory of a torch tensor as the input."""
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch.")).type
        binding.bind_input(self._input, self._device, INDEX, dtype, list(tensor.shape), tensor.data_ptr())

    def check_place(self, tensor: Any) -> None:
        """ValueError for a torch tensor that isn't where the session computes."""
        place = tensor.device
        if place.type != self._device or (place.index or 0) != INDEX:
            where = self._device if self._device == "cpu" else f"{self._device}:{INDEX}"
            raise ValueError(f"the tensor is on {place}, but the model runs on {where}; move it there")


def _graph_options(number: int | None) -> Any:
    """For a run: the number of its CUDA graph."""
    if number is None:
        return None
    from onnxruntime import RunOptions

    options = RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(number))
    return options


def _wait_for(tensor: Any) -> None:
    """onnxruntime computes on a stream of its own, which knows nothing of what torch's has begun."""
    if tensor.is_cuda:
        sys.modules["torch"].cuda.current_stream(tensor.device).synchronize()
