# The compiled module (csrc/module.cpp). Addresses are integers; hw4fast.kernels holds the safe faces.

def isas() -> list[str]: ...
def chosen_isa() -> str: ...
def default_threads() -> int: ...
def shares_openmp() -> bool: ...
def calls() -> dict[str, dict[str, int]]: ...
def softmax_xent(
    is_double: bool,
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
