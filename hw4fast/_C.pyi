# The compiled module (csrc/module.cpp). Addresses are integers; hw4fast.kernels holds the safe faces.

from collections.abc import Sequence

def rest() -> None: ...
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
def batch_norm_block(
    is_double: bool,
    input: int,
    strides: Sequence[int],
    weight: int,
    bias: int,
    mean: int,
    var: int,
    training: bool,
    output: int,
    code: int,
    shape: Sequence[int],
    eps: float,
    relu: bool,
    pool: bool,
    isa: str = "",
    threads: int = 0,
) -> None: ...
def batch_norm_block_backward(
    is_double: bool,
    grad: int,
    grad_strides: Sequence[int],
    code: int,
    input: int,
    strides: Sequence[int],
    weight: int,
    mean: int,
    var: int,
    training: bool,
    grad_input: int,
    grad_weight: int,
    grad_bias: int,
    shape: Sequence[int],
    eps: float,
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
    border: int = 0,
    nearest: bool = True,
) -> None: ...
def resize_table(filter: str, size: int, out: int, begin: int, count: int) -> list[int]: ...
def noise(
    kind: int,
    input: int,
    output: int,
    size: int,
    strength: float,
    table: int,
    bits: int,
    key: int,
    stream: int,
    isa: str = "",
) -> None: ...
def shuffle(picture: int, shape: Sequence[int], reach: int, turns: int, key: int, isa: str = "") -> None: ...
def shot_table(photons: float, bits: int, table: int) -> None: ...
def correlate(
    input: int,
    stride: int,
    output: int,
    shape: Sequence[int],
    rows: Sequence[int],
    columns: Sequence[int],
    weights: Sequence[int],
    unit: int,
    mirrored: bool,
    nearest: bool,
    isa: str = "",
) -> None: ...
def zoom_blur(
    input: int, stride: int, output: int, shape: Sequence[int], factors: Sequence[float], isa: str = ""
) -> None: ...
def zoom_blur_tables(h: int, w: int, factors: Sequence[float]) -> tuple[bytes, int, int, int, float]: ...
def above(
    field: int,
    shape: Sequence[int],
    output: int,
    size: Sequence[int],
    steps: Sequence[float],
    scale: float,
    offset: float,
    threshold: float,
    nearest: bool,
    isa: str = "",
) -> None: ...
def drops(grey: int, output: int, shape: Sequence[int], isa: str = "") -> None: ...
def jpeg(input: int, stride: int, output: int, shape: Sequence[int], quality: int, isa: str = "") -> None: ...
def hsv(input: int, output: int, pixels: int, saturates: bool, factor: float, offset: float, isa: str = "") -> None: ...
def veil(
    input: int,
    output: int,
    pixels: int,
    c: int,
    cover: int,
    layer: int,
    colour: Sequence[float],
    kept: float,
    shadow: float,
    amount: float,
    isa: str = "",
) -> None: ...
def snow(input: int, output: int, pixels: int, c: int, flakes: int, kept: float, isa: str = "") -> None: ...
def look_up(input: int, output: int, pixels: int, c: int, tables: int) -> None: ...
def plasma(map: int, draws: int, size: int, decay: float) -> None: ...
def resize(
    input: int,
    shape: Sequence[int],
    row_stride: int,
    size: Sequence[int],
    box: Sequence[int],
    filter: str,
    output: int,
    mean: Sequence[float],
    std: Sequence[float],
    isa: str = "",
    threads: int = 0,
) -> None: ...
def sample(
    input: int,
    shape: Sequence[int],
    row_stride: int,
    border: str,
    fill: int,
    down: bool,
    rows: int,
    columns: int,
    size: Sequence[int],
    output: int,
    isa: str = "",
    threads: int = 1,
) -> None: ...
def warp(
    input: int,
    shape: Sequence[int],
    row_stride: int,
    border: str,
    fill: int,
    down: bool,
    matrix: Sequence[float],
    size: Sequence[int],
    output: int,
    isa: str = "",
    threads: int = 1,
) -> None: ...
