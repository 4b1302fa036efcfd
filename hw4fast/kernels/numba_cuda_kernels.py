"""The kernels of hw4fast.kernels.numba_cuda, to be read as a lesson; csrc/*.cu do faster what they do.

What one must know of a GPU to read on
    thread, block, grid  A kernel is one thread's program. A launch runs it in a grid of blocks of threads. Threads of a
                         block can share memory and wait for each other; blocks come in any order and know no other.
    warp                 32 threads that are neighbours go in step.
    coalesced            Memory is read in pieces of 32 bytes. When a warp's threads want neighbours, eight float32 come
                         with each piece and all are used; when they want numbers that lie apart, seven of eight bytes
                         were moved for nothing. So threads go by the last dimension, and loops step by the block's
                         width: thread 0 takes numbers 0, 256, 512 …, thread 1 takes 1, 257, 513 …
    shared memory        Some 48 KB that a block has to itself, as fast as a cache. It lies in 32 banks, of which each
                         serves one number at a time: a warp's threads should want different banks, or the same number.
    barrier              cuda.syncthreads(): no thread goes on until all of its block are here. What one thread writes
                         into shared memory another may read only behind a barrier. It must not stand in a branch that
                         only some of the block's threads take: they would wait for ever.
"""

from __future__ import annotations

import importlib
import math
import operator
import os
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from hw4fast.errors import UserError
from hw4fast.kernels.conv_block import DEAD
from hw4fast.kernels.resize import BITS

# numba.cuda once load() has run, for importing it takes half a second. A global of the file that all kernels are in:
# there the simulator puts what knows of each thread which it is.
cuda: Any = None

WARP = 32
SQUARES = 8  # of 2×2 sums that a block of conv_block makes for each of its 32 channels
# a plain 0.5 would make float64 of float32
ZERO, HALF, ONE, WHITE, NAN = (np.float32(value) for value in (0, 0.5, 1, 255, np.nan))


@cache
def load() -> Any:
    """numba.cuda. Raises UserError where it can run nothing."""
    global cuda  # noqa: PLW0603
    try:
        from numba import cuda
    except ImportError as error:
        raise UserError(f"numba has no CUDA here ({error}): pip install numba-cuda") from error
    if not cuda.is_available():  # the simulator always is
        raise UserError(
            "numba finds no NVIDIA GPU, or no compiler for it: install a driver and numba-cuda[cu13]; on a CPU set"
            " NUMBA_ENABLE_CUDASIM=1 before Python starts, and numba simulates one, slowly"
        )
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") == "0":  # the simulator has no such part
        try:  # what it would import when it first compiles
            importlib.import_module("numba.cuda.cudaimpl")
        except (ImportError, AttributeError) as error:
            raise UserError(f"numba-cuda doesn't fit this numba or NumPy ({error}): install a newer one") from error
    return cuda


@cache
def compiled(make: Callable[..., Any], *arguments: Any, device: bool = False) -> Any:
    """What make(*arguments) defines as a kernel, or as a function for kernels to call. numba compiles it when it is
    called with new dtypes, which takes a second."""
    return cuda.jit(make(*arguments), device=device)


def launch(
    make: Callable[[], Any], blocks: int, width: int | tuple[int, int], *arguments: Any, shared: int = 0
) -> None:
    """Puts the kernel that make() defines on the default stream. width: threads of a block; shared: float32 that it
    has in shared memory, as many as threads unless told."""
    size = 4 * (shared or math.prod(width if isinstance(width, tuple) else (width,)))
    with warnings.catch_warnings():  # few blocks are no mistake where there is little to do
        warnings.filterwarnings("ignore", "Grid size")
        compiled(make)[blocks, width, 0, size](*arguments)


def _tree(combine: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def tree(shared: Any, value: Any) -> Any:
        """`combine` of all the block's threads' values, for each of them; shared [threads], a power of two of them.
        256 values are one after log₂ 256 = 8 rounds, in the same order every time: the same bits, too."""
        me, half = cuda.threadIdx.x, cuda.blockDim.x // 2
        cuda.syncthreads()  # somebody may still read the previous tree's result
        shared[me] = value
        cuda.syncthreads()  # all are written before one is read
        while half > 0:
            if me < half:  # the first half takes the second's: neighbours go on working on neighbours, on all banks
                shared[me] = combine(shared[me], shared[me + half])
            cuda.syncthreads()  # behind the if, not in it: all threads come here
            half //= 2
        return shared[0]

    return tree


def _larger() -> Callable[[Any, Any], Any]:
    def larger(a: Any, b: Any) -> Any:
        """max(a, b), which the CUDA within numba 0.66 to 0.68 does not compile (numba/numba#10753)."""
        return a if a > b else b

    return larger


def count() -> Callable[..., None]:
    from numba import float32

    block_sum = compiled(_tree, operator.add, device=True)

    def count(target: Any, ignore_index: int, counted: Any) -> None:
        """One block. target [n] → counted [1]: rows whose target counts."""
        shared, me = cuda.shared.array(0, float32), cuda.threadIdx.x  # 0: as large as the launch says
        mine = ZERO
        for i in range(me, target.shape[0], cuda.blockDim.x):
            if target[i] != ignore_index:
                mine += ONE
        total = block_sum(shared, mine)
        if me == 0:
            counted[0] = total

    return count


def mean() -> Callable[..., None]:
    from numba import float32

    block_sum = compiled(_tree, operator.add, device=True)

    def mean(losses: Any, divisor: Any, loss: Any) -> None:
        """One block, for blocks can't wait for each other: a second launch is how to add up what they found.
        losses [n], divisor [1] → loss [1]."""
        shared, me = cuda.shared.array(0, float32), cuda.threadIdx.x
        mine = ZERO
        for i in range(me, losses.shape[0], cuda.blockDim.x):
            mine += losses[i]
        total = block_sum(shared, mine)
        if me == 0:
            loss[0] = total / divisor[0]

    return mean


def softmax_rows() -> Callable[..., None]:
    from numba import float32

    larger = compiled(_larger, device=True)
    block_max = compiled(_tree, larger, device=True)
    block_sum = compiled(_tree, operator.add, device=True)
    lowest = np.float32(-np.inf)

    def rows(
        logits: Any, target: Any, hit: Any, each: Any, ignore_index: int, counted: Any, losses: Any, grad: Any
    ) -> None:
        """One block a row. logits [n, classes], target [n], counted [1] → losses [n], grad [n, classes]

        With d = logits − their maximum, so that no e^d overflows: loss = log Σe^d − hit·d_y − each·Σd. hit and each
        are the shares of label smoothing, 1 and 0 without it: the target's class has hit, and every class each.
        """
        shared = cuda.shared.array(0, float32)
        row, me, step = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
        classes, y = logits.shape[1], target[row]
        if y == ignore_index or y < 0 or y >= classes:
            nothing = ZERO if y == ignore_index else NAN
            for j in range(me, classes, step):
                grad[row, j] = nothing
            if me == 0:
                losses[row] = nothing
            return  # the barriers below miss no one: all threads of this block have the same y, and leave

        largest = lowest
        for j in range(me, classes, step):  # neighbours read neighbours: coalesced
            largest = larger(largest, logits[row, j])
        largest = block_max(shared, largest)

        total, differences = ZERO, ZERO
        for j in range(me, classes, step):  # the row once more; a short one is still in the cache
            d = logits[row, j] - largest
            total += math.exp(d)
            differences += d
        total = block_sum(shared, total)
        # barriers in a branch, but all threads take it or none; 0·∞ would be NaN
        differences = each * block_sum(shared, differences) if each > ZERO else ZERO

        share = ONE / counted[0]
        for j in range(me, classes, step):
            p = math.exp(logits[row, j] - largest) / total
            grad[row, j] = (p - each - (hit if j == y else ZERO)) * share
        if me == 0:
            losses[row] = math.log(total) - hit * (logits[row, y] - largest) - differences

    return rows


def bce() -> Callable[..., None]:
    from numba import float32

    larger = compiled(_larger, device=True)
    block_sum = compiled(_tree, operator.add, device=True)

    def bce(logits: Any, target: Any, share: Any, losses: Any, grad: Any) -> None:
        """logits, target [size] → losses [blocks]: a sum of each block's, grad [size]

        loss = max(x, 0) − x·y + log(1 + e^−|x|), whose e is never above 1.
        """
        shared, me = cuda.shared.array(0, float32), cuda.threadIdx.x
        mine = ZERO
        # the grid's width is the step: any number of blocks does it, and neighbours read neighbours
        for i in range(cuda.blockIdx.x * cuda.blockDim.x + me, logits.shape[0], cuda.blockDim.x * cuda.gridDim.x):
            x, y = logits[i], target[i]
            e = math.exp(-abs(x))
            mine += larger(x, ZERO) - x * y + math.log1p(e)
            grad[i] = ((ONE if x > ZERO else e) / (ONE + e) - y) * share
        total = block_sum(shared, mine)
        if me == 0:
            losses[cuda.blockIdx.x] = total

    return bce


def blur_down() -> Callable[..., None]:
    def down(image: Any, weights: Any, rows: Any, middle: Any) -> None:
        """image [n, h, line] → middle of that shape; weights [size], rows [h + size − 1]. A thread a number.

        A warp reads 32 neighbours of one row, then of the next: coalesced, and the blocks of the rows below find them
        in the cache. weights[k] and rows[y + k] are the same for all: one read serves the warp.
        """
        _, h, line = image.shape
        tiles = (line + cuda.blockDim.x - 1) // cuda.blockDim.x
        strip, tile = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles
        picture, y, x = strip // h, strip % h, tile * cuda.blockDim.x + cuda.threadIdx.x
        if x < line:  # the last block of a line may be too wide; there is no barrier to miss
            total = ZERO
            for k in range(weights.shape[0]):
                total += weights[k] * np.float32(image[picture, rows[y + k], x])
            middle[picture, y, x] = total

    return down


def blur_across() -> Callable[..., None]:
    from numba import float32

    def across(middle: Any, weights: Any, columns: Any, channels: int, rounds: bool, result: Any) -> None:
        """middle [n, h, line] → result of that shape; weights [size], columns [line + (size − 1)·channels].

        Neighbours look at almost the same numbers: the block fetches its part of the line once, with what stands beyond
        its ends, [threads + (size − 1)·channels] of shared memory, and then reads only there.
        """
        shared = cuda.shared.array(0, float32)
        _, h, line = middle.shape
        me, width = cuda.threadIdx.x, cuda.blockDim.x
        tiles = (line + width - 1) // width
        strip, first = cuda.blockIdx.x // tiles, cuda.blockIdx.x % tiles * width
        picture, y = strip // h, strip % h
        for i in range(me, width + (weights.shape[0] - 1) * channels, width):
            if first + i < columns.shape[0]:
                shared[i] = middle[picture, y, columns[first + i]]
        cuda.syncthreads()  # before any thread leaves: those beyond the line's end have fetched for the others
        if first + me < line:
            total = ZERO
            for k in range(weights.shape[0]):
                total += weights[k] * shared[me + k * channels]
            if rounds:
                result[picture, y, first + me] = math.floor(total + HALF)
            else:
                result[picture, y, first + me] = total

    return across


def resize_pass() -> Callable[..., None]:
    half, bits = 1 << (BITS - 1), BITS

    def one_pass(image: Any, first: Any, count: Any, weights: Any, result: Any) -> None:
        """image [outer, lines, inner] → result [outer, size, inner], bytes; first, count [size], weights [size, most]:
        which lines make which of the result; weights are whole numbers, as Pillow's are: 2^BITS for 1. A thread a
        number, and the next one that lies a whole grid further: the grid is as large as the GPU likes, whatever the
        picture.

        Down, `inner` is a row: a warp reads 32 neighbours at each step. Across it is a pixel's channels, and neighbours
        read some bytes apart, out of the same few pieces of memory.
        """
        outer, size, inner = result.shape
        step = cuda.gridDim.x * cuda.blockDim.x
        for i in range(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, outer * size * inner, step):
            at, j = i // inner, i % inner
            row, at = at // size, at % size
            total = half
            for k in range(count[at]):
                total += weights[at, k] * image[row, first[at] + k, j]
            total >>= bits
            result[row, at, j] = 0 if total < 0 else 255 if total > 255 else total

    return one_pass


def normalise() -> Callable[..., None]:
    def normalise(image: Any, mean: Any, std: Any, result: Any) -> None:
        """image [n, pixels, c] bytes → result [n, c, pixels]: (byte / 255 − mean) / std. Threads go by the
        result, which is four times as large as what they read out of order."""
        n, c, pixels = result.shape
        step = cuda.gridDim.x * cuda.blockDim.x
        for i in range(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, n * c * pixels, step):
            pixel, channel, picture = i % pixels, i // pixels % c, i // pixels // c
            value = np.float32(image[picture, pixel, channel]) / WHITE
            result[picture, channel, pixel] = (value - mean[channel]) / std[channel]

    return normalise


def conv_block() -> Callable[..., None]:
    from numba import float32

    def conv(input: Any, weight: Any, bias: Any, down: int, left: int, output: Any, code: Any) -> None:
        """input [n, c, h, w], weight [o, c, kh, kw], bias [o], padding down and left → output, code [n, rows, cols, o]

        A block is [squares, 32]: 32 channels of neighbouring outputs of a row. A thread sums the 2×2 square of one
        output's pool in four registers, so that each weight it fetches is used four times. code says which of the four
        was the largest, 0 … 3, or DEAD where ReLU let none pass: all that the gradient needs to know.
        """
        shared = cuda.shared.array(0, float32)  # one channel's filters, [kh·kw, 33], then its piece of the picture
        _, c, h, w = input.shape
        o, _, kh, kw = weight.shape
        _, rows, cols, _ = output.shape
        lane, square, squares = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
        me, threads = square * WARP + lane, squares * WARP
        groups, tiles = (o + WARP - 1) // WARP, (cols + squares - 1) // squares
        group, tile = cuda.blockIdx.x % groups, cuda.blockIdx.x // groups % tiles
        row, image = cuda.blockIdx.x // (groups * tiles) % rows, cuda.blockIdx.x // (groups * tiles * rows)
        first, col, channel = tile * squares, tile * squares + square, group * WARP + lane
        taps, wide = kh * kw, 2 * squares - 1 + kw
        piece = taps * (WARP + 1)
        p, q, r, s = ZERO, ZERO, ZERO, ZERO
        for k in range(c):
            cuda.syncthreads()  # others may still sum the last channel
            # Neighbours take neighbouring taps of a filter: coalesced. They write 33 apart, each to another bank but
            # where the next filter begins; 32 apart would be one bank for all. Below, neighbours read neighbouring
            # channels: other banks again.
            for i in range(me, taps * WARP, threads):
                at, tap = group * WARP + i // taps, i % taps
                shared[tap * (WARP + 1) + i // taps] = weight[at, k, tap // kw, tap % kw] if at < o else ZERO
            for i in range(me, (kh + 1) * wide, threads):
                y, x = 2 * row - down + i // wide, 2 * first - left + i % wide
                shared[piece + i] = input[image, k, y, x] if 0 <= y < h and 0 <= x < w else ZERO
            cuda.syncthreads()  # all is there
            for i in range(kh):
                for j in range(kw):
                    v = shared[(i * kw + j) * (WARP + 1) + lane]
                    at = piece + i * wide + 2 * square + j  # the same for a whole warp: one read serves it
                    p += v * shared[at]
                    q += v * shared[at + 1]
                    r += v * shared[at + wide]
                    s += v * shared[at + wide + 1]
        if col < cols and channel < o:  # behind the last barrier
            best, place = p, 0
            if q > best or math.isnan(q):  # of equal ones the first; NaN is above all
                best, place = q, 1
            if r > best or math.isnan(r):
                best, place = r, 2
            if s > best or math.isnan(s):
                best, place = s, 3
            best += bias[channel]
            if best <= ZERO:
                best, place = ZERO, DEAD
            output[image, row, col, channel] = best  # neighbours write neighbouring channels: coalesced
            code[image, row, col, channel] = place

    return conv
