"""The numba-cuda variants in numba's simulator of CUDA, against the float64 references:

NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.simulated softmax_xent

A process of its own, for numba reads the variable when it is imported. Each CUDA thread is a thread of Python here, so
blocks are small and inputs tiny; that also sends each thread through its loops several times.
"""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
from numba import cuda

from hw4fast.kernels import bce_with_logits, conv_block, gaussian_blur, numba_cuda, resize, softmax_xent


@contextmanager
def blocks_of(threads, blocks=numba_cuda.BLOCKS):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba_cuda, "THREADS", threads)
        patch.setattr(numba_cuda, "BLOCKS", blocks)
        yield


def near(found, reference, tolerance=1e-6):
    np.testing.assert_allclose(found, reference, rtol=1e-6, atol=tolerance)


def check_softmax_xent():
    run = numba_cuda.softmax_xent_numba_cuda
    for case, threads in (
        (softmax_xent.Case("plain", (2, 10)), 4),
        (softmax_xent.Case("offset", (2, 5), offset=1e4), 2),
        (softmax_xent.Case("smooth", (5, 9), options={"label_smoothing": 0.2}, ignored=True), 4),
        (softmax_xent.Case("ignored0", (7, 3), options={"ignore_index": 0}), 1),
        (softmax_xent.Case("warp", (1, 37)), 32),
    ):
        logits, target, options = case.make()
        before = logits.copy(), target.copy()
        with blocks_of(threads):
            loss, grad = run(logits, target, **options)
        assert loss.shape == () and loss.dtype == grad.dtype == np.float32
        assert np.array_equal(before[0], logits) and np.array_equal(before[1], target)
        loss_ref, grad_ref = softmax_xent.reference(logits, target, **options)
        near(loss, loss_ref), near(grad, grad_ref)
    with blocks_of(2):
        x, y = np.zeros((3, 4), np.float32), np.zeros(3, np.int64)
        x[0, 1], x[1] = -np.inf, np.nan
        near(run(x[:1], y[:1])[0], np.log(3))
        loss, grad = run(x, y)
        assert np.isnan(loss) and np.isnan(grad).any(1).tolist() == [False, True, False]
        loss, grad = run(x[:1], y[:1], ignore_index=0)
        assert np.isnan(loss) and not grad.any()  # the mean of nothing
        loss, grad = run(cuda.to_device(x[:1]), cuda.to_device(np.array([4])))  # no class, and nobody looks at it
        assert np.isnan(loss.copy_to_host()).all() and np.isnan(grad.copy_to_host()).all()

    x = np.zeros((2, 3), np.float32)
    for arguments, kind, message in (
        ((x, np.array([0, 3])), IndexError, r"target\[1\] is 3: it must lie in 0…2"),
        ((x, np.array([-100, -1])), IndexError, r"target\[1\] is -1"),
        ((x, np.array([0])), ValueError, "target must be"),
        ((x[0], np.array([0])), ValueError, "logits must be"),
        ((x[:0], np.zeros(0, np.int64)), ValueError, "needs a logit"),
        ((x[:, :0], np.array([0, 0])), ValueError, "needs a logit"),
        ((x, np.array([0, 0]), 1.5), ValueError, "label_smoothing"),
        ((x.astype(np.float64), np.array([0, 0])), TypeError, "logits must be float32"),
        ((x, np.array([0, 0], np.int32)), TypeError, "target must be int64"),
        ((x.tolist(), np.array([0, 0])), TypeError, "logits, target must all be"),
        ((cuda.to_device(x), np.array([0, 0])), TypeError, "all be on the GPU"),
        ((cuda.to_device(x), [0, 0]), TypeError, "target must be a NumPy array or one on the GPU, not list"),
        ((cuda.to_device(x)[:, ::2], cuda.to_device(np.array([0, 0]))), ValueError, "must be contiguous"),
    ):
        with pytest.raises(kind, match=message):
            run(*arguments)


def check_bce_with_logits():
    run = numba_cuda.bce_with_logits_numba_cuda
    for shape, threads, blocks in (((5, 17), 4, 3), ((), 2, 1), ((2, 3, 4), 8, 9)):
        logits, target, _ = bce_with_logits.Case("any", shape, size=20.0, soft=True).make()
        with blocks_of(threads, blocks):
            loss, grad = run(logits, target)
        assert loss.shape == () and grad.shape == shape and grad.dtype == np.float32
        loss_ref, grad_ref = bce_with_logits.reference(logits, target)
        near(loss, loss_ref), near(grad, grad_ref)
    x = np.zeros((2, 3), np.float32)
    with blocks_of(2):
        loss, grad = run(cuda.to_device(x), cuda.to_device(x))
        assert grad.copy_to_host().shape == (2, 3) and loss.copy_to_host().shape == (1,)
    for arguments, kind, message in (
        ((x, x[:1]), ValueError, "target must be"),
        ((x[:0], x[:0]), ValueError, "needs a logit"),
        ((x, x.astype(np.float64)), TypeError, "target must be float32"),
    ):
        with pytest.raises(kind, match=message):
            run(*arguments)


def check_gaussian_blur():
    run = numba_cuda.gaussian_blur_numba_cuda
    for dtype, shape, size, layout in (
        ("uint8", (4, 5, 3), 3, "HWC"),
        ("float32", (3, 2, 1, 9), (7, 5), "CHW"),
        ("float32", (2, 3, 4, 2), (9, 1), "HWC"),
    ):
        image, options = gaussian_blur.Case("any", shape, size, None, layout, dtype).make()
        with blocks_of(4):
            blurred = run(image, **options)
        assert blurred.dtype == image.dtype and blurred.shape == shape
        near(blurred, gaussian_blur.reference(image, **options), 0.501 if dtype == "uint8" else 1e-6)
    image = np.full((2, 9, 1), 255, np.uint8)
    with blocks_of(8):
        assert (run(image, 51, 9.0) == 255).all()
        turned = np.arange(18, dtype=np.uint8).reshape(9, 2, 1).transpose(1, 0, 2)
        assert np.array_equal(run(turned, 3), run(turned.copy(), 3))
        assert run(cuda.to_device(image), 3).copy_to_host().shape == (2, 9, 1)
    for arguments, kind, message in (
        ((image[0], 3), ValueError, "image must be"),
        ((image, 4), ValueError, "kernel_size must be odd"),
        ((image, 3, -1.0), ValueError, "sigma must be positive"),
        ((image[:0], 3), ValueError, "needs a pixel"),
        ((np.zeros((1, 1, 13), np.uint8), 999), ValueError, "doesn't fit the 49152 bytes"),
        ((image.astype(np.float64), 3), TypeError, "uint8 or float32"),
    ):
        with pytest.raises(kind, match=message):
            run(*arguments)


def check_resize():
    run = numba_cuda.resize_numba_cuda
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for shape, size, box, interpolation in (
        ((2, 5, 7, 3), (3, 4), None, "bilinear"),
        ((1, 9, 3, 1), (2, 3), None, "lanczos"),  # down comes first
        ((1, 3, 4, 3), (6, 9), (1, 2, 4, 5), "bicubic"),
        ((1, 2, 2, 1), (2, 2), None, "box"),
    ):
        pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        options = {"size": size, "box": box, "interpolation": interpolation}
        with blocks_of(4, 3):
            found = run(pictures, **options)
            assert np.array_equal(found, [resize.resize(one, **options) for one in pictures])
            options |= {"mean": mean[: shape[3]], "std": std[: shape[3]]}
            near(run(pictures, **options), [resize.resize(one, **options) for one in pictures])
            if shape[3] == 1:
                on_gpu = run(cuda.to_device(pictures), **options)
                near(on_gpu.copy_to_host(), run(pictures, **options))
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    for arguments, kind, message in (
        ((pictures[0], (2, 2)), ValueError, "pictures must be"),
        ((pictures[:0], (2, 2)), ValueError, "pictures must be"),
        ((pictures.astype(np.float32), (2, 2)), TypeError, "pictures must be uint8"),
        ((pictures, (0, 2)), ValueError, "must have pixels"),
        ((pictures, (2, 2), None, "nearest"), ValueError, "interpolation"),
        ((pictures, (2, 2), None, "box", (1, 2)), ValueError, "mean and std"),
    ):
        with pytest.raises(kind, match=message):
            run(*arguments)


def check_conv_block():
    run = numba_cuda.conv_block_numba_cuda
    for shape, filters, padding in (
        ((1, 2, 5, 7), (3, 3, 3), (1, 1)),
        ((1, 1, 4, 3), (33, 2, 1), (1, 0)),  # more channels than a warp's
        ((2, 1, 2, 35), (1, 1, 3), (0, 0)),  # more squares than a block's
        ((1, 1, 2, 2), (2, 7, 5), (3, 3)),  # a filter beyond the picture
    ):
        case = conv_block.Case("any", shape, filters, padding=padding)
        input, weight, bias, options = case.make()
        output, code = run(input, weight, bias, padding)
        output_ref, code_ref = conv_block.reference(input, weight, bias, **options)
        assert output.dtype == np.float32 and code.dtype == np.uint8
        near(output.transpose(0, 3, 1, 2), output_ref), np.testing.assert_array_equal(code, code_ref)

    one, none = np.ones((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
    nan = np.nan
    squares = [
        (1, 1, 0, 1),
        (0, 1, 1, 0),
        (-1, -1, -2, -1),
        (-1, 0, 0, -1),
        (nan, 5, 1, 2),
        (1, nan, 0, 9),
        (1, nan, nan, 9),
        (9, 1, 0, nan),
        (9, 1, 0, nan),
    ]
    for values in squares:
        square = np.array(values, np.float32).reshape(1, 1, 2, 2)
        found, wanted = run(square, one, none), conv_block.reference(square, one, none)
        assert np.array_equal(found[0], wanted[0], equal_nan=True) and np.array_equal(found[1], wanted[1]), values

    picture, weight = np.zeros((2, 3, 8, 8), np.float32), np.zeros((4, 3, 3, 3), np.float32)
    for arguments, kind, message in (
        ((picture, weight, none), ValueError, "bias must be"),
        ((picture, weight, None), TypeError, "must all be NumPy arrays"),
        ((picture, weight[:, :2], weight[:, 0, 0, 0]), ValueError, "weight must be"),
        ((picture[0], weight, weight[:, 0, 0, 0]), ValueError, "input must be"),
        ((picture[:0], weight, weight[:, 0, 0, 0]), ValueError, "needs a picture"),
        ((picture, weight, weight[:, 0, 0, 0], (-1, 0)), ValueError, "padding must be"),
        ((picture, weight, np.zeros(4)), TypeError, "bias must be float32"),
    ):
        with pytest.raises(kind, match=message):
            run(*arguments)


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
    print("all is well")
