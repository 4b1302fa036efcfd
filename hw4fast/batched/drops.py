"""kernels.drops for batches, in torch operations: its very bits, in integers but for the end."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from hw4fast.batched.forms import on, single
from hw4fast.kernels.drops import FARTHEST, STEPS, STRONG, WEAK

LEVELS = 32  # that are counted; 0 … FARTHEST occur
UNIT = 1024  # a distance of 1


def above(
    fields: Tensor,
    threshold: float,
    scale: float = 1.0,
    offset: float = 0.0,
    rounding: str = "down",
    size: tuple[int, ...] | None = None,
    steps: tuple[float, ...] = (1.0, 1.0),
) -> Tensor:
    """float32 [n, rows, columns] → uint8 [n, h, w]: kernels.drops.above of each."""
    for axis, step in ((2, steps[1]), (1, steps[0])):
        length, wanted = fields.shape[axis], fields.shape[axis] if size is None else size[axis - 1]
        if (length, step) == (wanted, 1.0):
            continue
        at = np.arange(wanted) * step
        first = np.minimum(at.astype(np.int64), length - 1)
        share = on(fields, (at - first).astype(np.float32))
        lower, upper = (fields.index_select(axis, on(fields, np.minimum(first + k, length - 1))) for k in (0, 1))
        fields = lower + (upper - lower) * share.view(-1, *(1,) * (2 - axis))
    values = fields * single(scale) + single(offset)
    values = torch.where(values >= single(threshold), values, 0.0).clamp(0, 1)
    return (values * 255 + (0.5 if rounding == "nearest" else 0.0)).to(torch.uint8)


def drops(grey: Tensor) -> Tensor:
    """uint8 [n, h, w] → float32 of the same shape in 0 … 1: kernels.drops.drops of each."""
    levels = _equalised(_mean_of_nine(_distance(_edges(grey))) // UNIT)
    near = _mirrored(levels)
    slope = sum(
        weight * _moved(near, row, column)
        for weight, row, column in ((-2, -1, -1), (-1, -1, 0), (-1, 0, -1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1))
    )
    assert isinstance(slope, Tensor)
    bright = ((_sum_of_nine(slope.clamp(0, 255)) + 4) // 9 * grey.int()).float()
    share = torch.ones_like(bright[:, :1, :1]) / bright.amax((1, 2), keepdim=True).clamp(min=1)
    return bright * share


def _edges(grey: Tensor) -> Tensor:
    """bool [n, h, w]: Canny's."""
    near = pad(grey.float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0].int()
    at = {(y, x): _moved(near, y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)}
    across = at[-1, 1] - at[-1, -1] + 2 * (at[0, 1] - at[0, -1]) + at[1, 1] - at[1, -1]
    down = at[1, -1] - at[-1, -1] + 2 * (at[1, 0] - at[-1, 0]) + at[1, 1] - at[-1, 1]
    amount = across.abs() + down.abs()
    low = 2 * across.abs() * 13573 >> 16  # tan 22.5° in units of 2^−15
    flat, steep = (down.abs() <= low) & (across != 0), down.abs() > low + 2 * across.abs()
    rising = (across ^ down) < 0
    beside = pad(amount, (1, 1, 1, 1))
    sides = [
        torch.where(
            flat,
            _moved(beside, 0, side),
            torch.where(
                steep,
                _moved(beside, side, 0),
                torch.where(rising, _moved(beside, side, -side), _moved(beside, side, side)),
            ),
        )
        for side in (-1, 1)
    ]
    greatest = (amount > sides[0]) & ((amount > sides[1]) | ((amount == sides[1]) & (flat | steep)))
    weak, edges = (greatest & (amount > least) for least in (WEAK, STRONG))
    while True:  # weak ones that touch strong ones become strong
        grown = edges
        for _ in range(8):
            near = pad(grown, (1, 1, 1, 1))
            rows = near[:, :-2] | near[:, 1:-1] | near[:, 2:]
            grown = (rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:]) & weak
        if torch.equal(grown, edges):
            return edges
        edges = grown


def _distance(edges: Tensor) -> Tensor:
    """int32 [n, h, w]: to the nearest edge in UNIT, at most FARTHEST. The nearest of each row, then of some rows: a way
    of so many columns and rows is the longer the more columns it has."""
    reach = int(FARTHEST)
    beside = torch.where(edges, 0, reach).int()
    for step in (1, 2, 4, 8, 8):  # up to 23 pixels to each side
        far = pad(beside, (step, step), value=reach)
        width = beside.shape[2]
        beside = torch.minimum(beside, torch.minimum(far[..., :width], far[..., 2 * step :]) + step)
    table = on(edges, _ways())
    nearest = table[0][beside]
    far = pad(beside, (0, 0, reach, reach), value=reach)
    height = beside.shape[1]
    for row in range(1, reach):
        either = torch.minimum(far[:, reach - row : reach - row + height], far[:, reach + row : reach + row + height])
        nearest = torch.minimum(nearest, table[row][either])
    return nearest


@lru_cache(1)
def _ways() -> np.ndarray:
    """int32 [rows, columns]: how long the shortest way of STEPS over so many rows and columns is, at most FARTHEST."""
    side = int(FARTHEST) + 1
    rows, columns = np.ogrid[:side, :side]
    long, short = np.maximum(rows, columns), np.minimum(rows, columns)
    straight, aslant, knight = (round(UNIT * STEPS[step]) for step in ((0, 1), (1, 1), (1, 2)))
    ways = np.where(
        long >= 2 * short,
        (long - 2 * short) * straight + short * knight,
        (long - short) * knight + (2 * short - long) * aslant,
    )
    return np.minimum(ways, UNIT * int(FARTHEST)).astype(np.int32)


def _equalised(levels: Tensor) -> Tensor:
    """OpenCV's equalizeHist of levels, int32 [n, h, w]."""
    n, each = len(levels), levels[0].numel()
    flat = levels.reshape(n, -1).long()
    counts = torch.zeros(n, LEVELS, dtype=torch.int32, device=levels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.int32))
    first = flat.amin(1, keepdim=True)
    of_first = counts.gather(1, first)
    share = torch.full_like(of_first, 255).float() / (each - of_first).float()
    table = ((counts.cumsum(1) - of_first).float() * share).round()
    table = torch.where(of_first == each, first.float(), table)
    return table.int().gather(1, flat).view(levels.shape)


def _mirrored(values: Tensor) -> Tensor:
    """[n, h, w] → [n, h + 2, w + 2], about the end pixels; a line of one repeats it."""
    for axis in (1, 2):
        n = values.shape[axis]
        places = torch.arange(-1, n + 1, device=values.device).abs()
        values = values.index_select(axis, torch.minimum(places, 2 * (n - 1) - places).abs() if n > 1 else places * 0)
    return values


def _moved(near: Tensor, row: int, column: int) -> Tensor:
    """[n, h + 2, w + 2] → [n, h, w]: what lies there of each pixel."""
    height, width = near.shape[1] - 2, near.shape[2] - 2
    return near[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]


def _sum_of_nine(values: Tensor) -> Tensor:
    near = _mirrored(values)
    rows = near[:, :-2] + near[:, 1:-1] + near[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _mean_of_nine(values: Tensor) -> Tensor:
    """Rounded down."""
    return _sum_of_nine(values) // 9
