"""Runs each CUDA kernel on small inputs, for compute-sanitizer: python tests/gpu/sanitized.py"""

import numpy as np
import torch

from hw4fast import kernels
from hw4fast.nn import (
    batch_norm_block,
    binary_cross_entropy_with_logits,
    conv_block,
    correlate,
    draws,
    fixed_blur,
    float_blur,
    gaussian_blur,
    jpeg,
    noise,
    resize,
    sample,
    shuffle,
    softmax_cross_entropy,
    warp,
    zoom_blur,
)


def layers() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for rows, classes in ((100, 10), (600, 10), (7, 131), (3, 4099), (9, 20000), (4, 70001)):
            x = torch.randn(rows, classes, device="cuda", dtype=dtype).requires_grad_()
            target = torch.randint(0, classes, (rows,), device="cuda")
            softmax_cross_entropy(x, target, label_smoothing=0.1 * (rows % 2)).backward()
        for c, o, size in ((1, 16, 5), (16, 32, 5), (32, 16, 5), (8, 64, 3), (256, 40, 3), (3, 5, 2)):
            x = torch.randn(3, 13, 14, c, device="cuda", dtype=dtype).permute(0, 3, 1, 2).requires_grad_()
            weight = torch.randn(o, c, size, size, device="cuda", dtype=dtype).requires_grad_()
            bias = torch.randn(o, device="cuda", dtype=dtype).requires_grad_()
            for pool in (True, False):
                conv_block(x, weight, bias, padding=size // 2, pool=pool).float().sum().backward()
        for shape in ((3, 13, 14, 8), (2, 7, 6, 5)):
            x = torch.randn(*shape, device="cuda", dtype=dtype).permute(0, 3, 1, 2).requires_grad_()
            weight, bias = (torch.randn(shape[3], device="cuda").requires_grad_() for _ in range(2))
            for pool in (True, False):
                batch_norm_block(x, weight, bias, pool=pool)[0].float().sum().backward()
    x = torch.randn(999, 3, device="cuda").requires_grad_()
    binary_cross_entropy_with_logits(x, torch.rand(999, 3, device="cuda")).backward()


def pictures_of_all_kinds() -> None:
    for shape, size in (((2, 3, 17, 40), 5), ((1, 1, 5, 33), 51)):
        pictures = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
        gaussian_blur(pictures, size), gaussian_blur(pictures.float(), size)
    for size in ((40, 33), (5, 60), (70, 90)):
        resize(torch.randint(0, 256, (2, 50, 64, 3), dtype=torch.uint8, device="cuda"), size)
    for shape in ((2, 5, 33, 1), (3, 40, 70, 3)):
        pictures = torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")
        for kind, strength in (("gaussian", 0.1), ("speckle", 0.3), ("impulse", 0.2), ("shot", 25.0)):
            noise(pictures, kind, strength, range(shape[0]))
        for kind in ("normal", "uniform"):
            draws(kind, (65,), range(3), pictures)
        shuffle(pictures, 2, 2, range(shape[0]))
        for size, sigmas in ((5, [1.0]), (51, [3.0] * shape[0])):
            fixed_blur(pictures, size, sigmas)
        for sizes, border in (((5, 3), "reflect"), ((51, 17), "mirror"), ((1, 99), "edge")):
            float_blur(pictures.float(), sizes, (1.0, 3.0), border)
        for reach in (3, 300):
            correlate(pictures, [(np.array([-reach, 0, 2]), np.array([0, reach, 1]), np.array([0.25, 0.5, 0.25]))])
        zoom_blur(pictures, [1.0, 1.2, 3.0])
        jpeg(pictures, 30)
        for fill in (None, 255):
            warp(pictures, np.array([[[0.9, 0.4, -3.0], [-0.3, 1.1, 2.0], [1e-3, 0, 1]]]), fill)
        sample(pictures, np.float32([-2, 3.5, 99]), np.float32([0.25, 7]))
        rows, columns = torch.randn(2, shape[0], 31, 45, device="cuda") * 60
        rows[0, 0, :3] = torch.tensor([torch.nan, torch.inf, 1e9], device="cuda")[:, None]
        for border in ("edge", "reflect", "constant"):
            sample(pictures, rows, columns, border, 9, "down")


def main() -> None:
    layers()
    pictures_of_all_kinds()
    torch.cuda.synchronize()
    print(kernels.cuda_calls())


if __name__ == "__main__":
    main()
