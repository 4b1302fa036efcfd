# The compiled module (csrc/module.cpp). Addresses are integers; hw4fast.kernels holds the safe faces.

from collections.abc import Sequence

def isas() -> list[str]: ...
def chosen_isa() -> str: ...
def default_threads() -> int: ...
def shares_openmp() -> bool: ...
def calls() -> dict[str, dict[str, int]]: ...
def softmax_xent(
    dtype: int,
    logits: int,
    target: int,
    weight: int,
    loss: int,
    grad: int,
    rows: int,
    classes: int,
    row_stride: int,
    scale: float,
    label_smoothing: float,
    ignore_index: int,
    reduction: int,
    isa: str = "",
    threads: int = 0,
) -> None: ...
def bce_with_logits(
    is_double: bool,
    logits: int,
    target: int,
    weight: int,
    weight_period: int,
    pos_weight: int,
    pos_weight_period: int,
    loss: int,
    grad: int,
    n: int,
    reduction: int,
    isa: str = "",
    threads: int = 0,
) -> None: ...
def conv_block(
    is_double: bool,
    input: int,
    strides: Sequence[int],
    weight: int,
    bias: int,
    output: int,
    code: int,
    shape: Sequence[int],
    filters: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    relu: bool,
    pool: bool,
    isa: str = "",
    threads: int = 0,
) -> None: ...
def conv_block_backward(
    is_double: bool,
    grad: int,
    grad_strides: Sequence[int],
    code: int,
    is_own_code: bool,
    input: int,
    strides: Sequence[int],
    weight: int,
    grad_input: int,
    grad_weight: int,
    grad_bias: int,
    shape: Sequence[int],
    filters: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    relu: bool,
    pool: bool,
    isa: str = "",
    threads: int = 0,
) -> None: ...
def gaussian_blur(
    is_float: bool,
    input: int,
    strides: Sequence[int],
    output: int,
    shape: Sequence[int],
    down: int,
    across: int,
    sizes: Sequence[int],
    units: Sequence[int],
    kept: int,
    isa: str = "",
    threads: int = 0,
) -> None: ...
