"""The kernels as torch operators with autograd, and as functions and modules in torch.nn's manner, a file each."""

from hw4fast.nn.batch_norm_block import BatchNormBlock, batch_norm_block
from hw4fast.nn.bce_with_logits import BinaryCrossEntropyWithLogits, binary_cross_entropy_with_logits
from hw4fast.nn.conv_block import ConvBlock, conv_block
from hw4fast.nn.correlate import correlate, zoom_blur
from hw4fast.nn.fit import fit
from hw4fast.nn.fixed_blur import fixed_blur, float_blur
from hw4fast.nn.gaussian_blur import GaussianBlur, gaussian_blur
from hw4fast.nn.jpeg import jpeg
from hw4fast.nn.noise import draws, noise, shuffle
from hw4fast.nn.resize import resize
from hw4fast.nn.sample import sample, warp
from hw4fast.nn.softmax_xent import SoftmaxCrossEntropy, softmax_cross_entropy

__all__ = [
    "BatchNormBlock",
    "BinaryCrossEntropyWithLogits",
    "ConvBlock",
    "GaussianBlur",
    "SoftmaxCrossEntropy",
    "batch_norm_block",
    "binary_cross_entropy_with_logits",
    "conv_block",
    "correlate",
    "draws",
    "fit",
    "fixed_blur",
    "float_blur",
    "gaussian_blur",
    "jpeg",
    "noise",
    "resize",
    "sample",
    "shuffle",
    "softmax_cross_entropy",
    "warp",
    "zoom_blur",
]
