"""Five of the kernels in numba's CUDA: the readable middle road to csrc/*.cu. How they work is told in
numba_cuda_kernels.py; here is what checks, copies and launches.

They need an NVIDIA GPU and a numba that knows its CUDA: NVIDIA's package numba-cuda, or what numba itself still has.
Without a GPU NUMBA_ENABLE_CUDASIM=1, set before Python starts, makes each CUDA thread a thread of Python: very slow,
but a debugger can follow it, and the tests run so.

NumPy arrays come back as NumPy arrays. What is on the GPU (numba's arrays, torch's tensors without gradient, whatever
has __cuda_array_interface__) stays there: the results are numba's device arrays, a loss one of a single number. The
work is put on the default stream; what another stream has yet to write must be waited for before.

Of each function: ValueError for a wrong shape or value and for empty arrays, TypeError for a wrong dtype or arrays of
which only some are on the GPU, UserError where there is neither a GPU nor the simulator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hw4fast.kernels import bce_with_logits as bce_card
from hw4fast.kernels import conv_block as conv_card
from hw4fast.kernels import gaussian_blur as blur_card
from hw4fast.kernels import numba_cuda_kernels as gpu
from hw4fast.kernels import resize as resize_card
from hw4fast.kernels import softmax_xent as softmax_card

THREADS = 256  # of a block, at most: enough warps that some compute while others wait for memory
BLOCKS = 1024  # where blocks share the work, however much it is: some for every multiprocessor
SHARED = 48 * 1024  # bytes that any GPU gives a block


def softmax_xent_numba_cuda(
    logits: Any, target: Any, label_smoothing: float = 0.0, ignore_index: int = -100
) -> tuple[Any, Any]:
    """The mean loss and its gradient [n, classes] of float32 logits and int64 target, as softmax_xent's card has them.

    A target that is neither a class nor ignore_index is an IndexError in a NumPy array; of one on the GPU, where nobody
    waits to look, the loss is NaN and so is that row's gradient.
    """
    is_numpy, (logits, target) = _ready(logits=logits, target=target)
    softmax_card.check(logits, target, None, label_smoothing, "mean")
    _check_dtypes(np.float32, logits=logits)
    _check_dtypes(np.int64, target=target)
    n, classes = logits.shape
    if n * classes == 0:
        raise ValueError(f"the numba-cuda variant needs a logit, not {[n, classes]}")
    if is_numpy:
        wrong = np.flatnonzero((target != ignore_index) & ((target < 0) | (target >= classes)))
        if len(wrong):
            raise IndexError(f"target[{wrong[0]}] is {target[wrong[0]]}: it must lie in 0…{classes - 1}")
    x, y = _on_device(logits), _on_device(target)
    counted, losses, loss, grad = _new(1), _new(n), _new(1), _new((n, classes))
    hit, each = np.float32(1 - label_smoothing), np.float32(label_smoothing / classes)
    gpu.launch(gpu.count, 1, _width(n), y, ignore_index, counted)
    gpu.launch(gpu.softmax_rows, n, _width(classes), x, y, hit, each, ignore_index, counted, losses, grad)
    gpu.launch(gpu.mean, 1, _width(n), losses, counted, loss)
    return (loss.copy_to_host().reshape(()), grad.copy_to_host()) if is_numpy else (loss, grad)


def bce_with_logits_numba_cuda(logits: Any, target: Any) -> tuple[Any, Any]:
    """The mean loss and its gradient like logits of float32 logits and target, as bce_with_logits' card has them."""
    is_numpy, (logits, target) = _ready(logits=logits, target=target)
    bce_card.check(logits, target, None, None, "mean")
    _check_dtypes(np.float32, logits=logits, target=target)
    size = math.prod(logits.shape)
    if size == 0:
        raise ValueError(f"the numba-cuda variant needs a logit, not {list(logits.shape)}")
    x, y = _on_device(logits).reshape(size), _on_device(target).reshape(size)
    width = _width(size)
    blocks = min(BLOCKS, -(-size // width))
    losses, loss, grad = _new(blocks), _new(1), _new(size)
    gpu.launch(gpu.bce, blocks, width, x, y, np.float32(1 / size), losses, grad)
    gpu.launch(gpu.mean, 1, _width(blocks), losses, gpu.load().to_device(np.array([size], np.float32)), loss)
    grad = grad.reshape(tuple(logits.shape))
    return (loss.copy_to_host().reshape(()), grad.copy_to_host()) if is_numpy else (loss, grad)


def gaussian_blur_numba_cuda(
    image: Any, kernel_size: blur_card.Sizes, sigma: blur_card.Sigmas = None, layout: str = "HWC"
) -> Any:
    """Blurred pictures like image, uint8 (rounded; float32 between) or float32, as gaussian_blur's card has them."""
    is_numpy, (image,) = _ready(image=image)
    blur_card.check(image, layout)
    if image.dtype not in blur_card.DTYPES:
        raise TypeError(f"image must be uint8 or float32, not {image.dtype}")
    (across, down), (sigma_x, sigma_y) = blur_card.pairs(kernel_size, sigma)
    shape = tuple(image.shape)
    if 0 in shape:
        raise ValueError(f"the numba-cuda variant needs a pixel, not {list(shape)}")
    (h, w, c) = shape[-3:] if layout == "HWC" else (*shape[-2:], 1)  # each channel of a CHW picture is a picture
    x = _on_device(image).reshape((math.prod(shape) // (h * w * c), h, w * c))
    n, _, line = x.shape
    width = _width(line)
    held = width + (across - 1) * c  # numbers of a line that a block looks at
    if 4 * held > SHARED:
        raise ValueError(f"a kernel of {across} pixels with {c} channels doesn't fit the {SHARED} bytes a block has")
    weights_down, weights_across = (
        gpu.load().to_device(blur_card.gaussian_weights(*of).astype(np.float32))
        for of in ((down, sigma_y), (across, sigma_x))
    )
    rows = blur_card.reflected(down // 2, h)  # [h + down − 1]: the row that stands there, beyond the border, too
    columns = (blur_card.reflected(across // 2, w)[:, None] * c + np.arange(c)).ravel()  # likewise [(w + across − 1)·c]
    middle, result = _new((n, h, line)), _new((n, h, line), image.dtype)
    blocks = n * h * -(-line // width)
    gpu.launch(gpu.blur_down, blocks, width, x, weights_down, gpu.load().to_device(rows), middle)
    places = gpu.load().to_device(columns)
    rounds = image.dtype == np.uint8
    gpu.launch(gpu.blur_across, blocks, width, middle, weights_across, places, c, rounds, result, shared=held)
    result = result.reshape(shape)
    return result.copy_to_host() if is_numpy else result


def resize_numba_cuda(
    pictures: Any,
    size: tuple[int, int],
    box: resize_card.Box | None = None,
    interpolation: str = "bilinear",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Any:
    """Pictures uint8 [n, h, w, 1 or 3] resized as resize's card has them: uint8 [n, height, width, c], Pillow's
    bytes; with mean and std float32 [n, c, height, width]."""
    is_numpy, (pictures,) = _ready(pictures=pictures)
    _check_dtypes(np.uint8, pictures=pictures)
    n, h, w, c = shape = pictures.shape if len(pictures.shape) == 4 else (0, 0, 0, 0)
    if n == 0:
        raise ValueError(f"pictures must be [n, h, w, 1 or 3] with pixels, not {list(pictures.shape)}")
    height, width, (top, left, rows, columns) = resize_card.checked(shape[1:], size, box, interpolation)
    means, stds = resize_card.normalisation(mean, std, c)
    across, down = (w, width, left, columns, interpolation), (h, height, top, rows, interpolation)
    image = _on_device(pictures)
    for axis in (1, 2) if resize_card.down_first(h, w, height, width) else (2, 1):
        taps = [gpu.load().to_device(part) for part in resize_card.fixed(*(down if axis == 1 else across))]
        before = image.shape
        after = (n, rows, before[2], c) if axis == 1 else (n, before[1], columns, c)
        lines, inner = (n, before[2] * c) if axis == 1 else (n * before[1], c)
        result = _new((lines, after[axis], inner), np.uint8)
        image = image.reshape((lines, before[axis], inner))
        gpu.launch(gpu.resize_pass, _blocks(math.prod(after)), THREADS, image, *taps, result)
        image = result.reshape(after)
    if means:
        given = (gpu.load().to_device(np.array(values, np.float32)) for values in (means, stds))
        result = _new((n, c, rows * columns))
        gpu.launch(
            gpu.normalise,
            _blocks(n * c * rows * columns),
            THREADS,
            image.reshape((n, rows * columns, c)),
            *given,
            result,
        )
        image = result.reshape((n, c, rows, columns))
    return image.copy_to_host() if is_numpy else image


def conv_block_numba_cuda(input: Any, weight: Any, bias: Any, padding: conv_card.Pair = (0, 0)) -> tuple[Any, Any]:
    """Output [n, rows, cols, o] and code, uint8, of that shape: convolution with stride 1, bias, ReLU and pool in
    float32, as conv_block's card has them; the output here in the order in which it lies in memory."""
    is_numpy, (input, weight, bias) = _ready(input=input, weight=weight, bias=bias)
    n, o, rows, cols = conv_card.check(input, weight, bias, (1, 1), padding, True, True)
    _check_dtypes(np.float32, input=input, weight=weight, bias=bias)
    if n == 0:
        raise ValueError(f"the numba-cuda variant needs a picture, not {list(input.shape)}")
    x, filters, b = _on_device(input), _on_device(weight), _on_device(bias)
    output, code = _new((n, rows, cols, o)), _new((n, rows, cols, o), np.uint8)
    _, _, kh, kw = weight.shape
    squares = min(gpu.SQUARES, cols)
    blocks = n * rows * -(-cols // squares) * -(-o // gpu.WARP)
    held = kh * kw * (gpu.WARP + 1) + (kh + 1) * (2 * squares - 1 + kw)
    gpu.launch(gpu.conv_block, blocks, (gpu.WARP, squares), x, filters, b, *padding, output, code, shared=held)
    return (output.copy_to_host(), code.copy_to_host()) if is_numpy else (output, code)


def _ready(**arrays: Any) -> tuple[bool, list[Any]]:
    """Whether the caller's arrays are NumPy's; these, or numba's faces of what is on the GPU, which isn't copied."""
    cuda = gpu.load()
    is_numpy = [isinstance(array, np.ndarray) for array in arrays.values()]
    if all(is_numpy):
        return True, list(arrays.values())
    if any(is_numpy):
        raise TypeError(f"{', '.join(arrays)} must all be NumPy arrays or all be on the GPU")
    found = {}
    for name, array in arrays.items():
        is_numbas = getattr(array, "__cuda_ndarray__", False)  # the simulator's have no other face
        if not is_numbas and not hasattr(array, "__cuda_array_interface__"):
            raise TypeError(f"{name} must be a NumPy array or one on the GPU, not {type(array).__name__}")
        found[name] = array if is_numbas else cuda.as_cuda_array(array)
        if not found[name].is_c_contiguous():
            raise ValueError(f"{name} must be contiguous on the GPU")
    return False, list(found.values())


def _check_dtypes(dtype: Any, **arrays: Any) -> None:
    for name, array in arrays.items():
        if array.dtype != dtype:
            raise TypeError(f"{name} must be {np.dtype(dtype)} for the numba-cuda variant, not {array.dtype}")


def _on_device(array: Any) -> Any:
    return gpu.load().to_device(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array


def _new(shape: int | tuple[int, ...], dtype: Any = np.float32) -> Any:
    """On the GPU; what is in it is whatever was there."""
    return gpu.load().device_array(shape, dtype)


def _blocks(size: int) -> int:
    """Of THREADS threads that step through so many things."""
    return min(BLOCKS, -(-size // THREADS))


def _width(size: int) -> int:
    """Threads of a block for so many things: a power of two, as sums are halved, and at least a warp."""
    return min(THREADS, max(gpu.WARP, 1 << (size - 1).bit_length()))
