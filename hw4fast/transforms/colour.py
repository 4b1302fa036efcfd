"""How bright, how contrasty, how colourful, and in which colours."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from hw4fast.transforms.pixels import to_uint8
from hw4fast.transforms.spec import Parameter, Sweep, Transform, register

GREYS = np.arange(256)  # every value that a byte has
ORDERS = tuple("".join(order) for order in permutations("RGB"))[1:]  # but RGB itself


def exposure(picture: np.ndarray, *, factor: float) -> np.ndarray:
    """Every value × factor, clipped: 0 is black, 1 the picture itself (Pillow's ImageEnhance.Brightness)."""
    return to_uint8(_brightness(GREYS.astype(np.float32), factor)).take(picture)


def gamma(picture: np.ndarray, *, exponent: float) -> np.ndarray:
    """Every value v in 0…1 becomes v^exponent: above 1 what lies between black and white gets darker."""
    return to_uint8(255 * (GREYS / 255) ** exponent).take(picture)


def posterise(picture: np.ndarray, *, bits: int) -> np.ndarray:
    """The upper bits of every value, the others 0 (Pillow's ImageOps.posterize)."""
    return picture & np.uint8(256 - 2 ** (8 - bits))


def solarise(picture: np.ndarray, *, threshold: float) -> np.ndarray:
    """Every value from the threshold on is inverted (Pillow's ImageOps.solarize)."""
    return to_uint8(np.where(threshold <= GREYS, 255 - GREYS, GREYS)).take(picture)


def hue(picture: np.ndarray, *, degrees: float) -> np.ndarray:
    """Turns the hue of HSV, from red over yellow to green for positive degrees; the largest and the smallest of a
    pixel's values stay. A grey picture stays itself.

    With M and m these two, C = M − m, and the hue h in sixths of its circle from red, −3 … 3: a channel whose own hue
    is c has M − C · clip(|h − c| − 1, 0, 1), the distance taken around the circle. All times C, no division is left:
    C h = ±(C + g + b − r − m), with the sign of g − b.
    """
    if picture.shape[2] == 1:
        return picture.copy()
    planes = _planes(picture)
    red, green, blue = planes
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = most - least
    here = _signed(chroma - red - least + green + blue, green - blue)
    half, base = chroma * np.float32(3), most - chroma * np.float32(2)
    for channel, value in enumerate(planes):  # in place: new planes would take longer than what is done on them
        turn = np.float32((degrees / 60 - 2 * channel + 3) % 6 - 3)
        np.add(np.multiply(chroma, turn, out=value), here, out=value)
        np.subtract(np.abs(value, out=value), half, out=value)
        np.add(np.abs(value, out=value), base, out=value)  # | … | is 3 C − the distance
        np.minimum(np.maximum(value, least, out=value), most, out=value)
    return _joined(planes)


def grey(picture: np.ndarray, *, amount: float) -> np.ndarray:
    """Each pixel goes `amount` of the way to its grey (Pillow's ImageEnhance.Color with 1 − amount)."""
    return _joined(_saturation(_planes(picture), 1 - amount))


def channel_swap(picture: np.ndarray, *, order: str) -> np.ndarray:
    """The channels in another order: BGR is what a reader without care gives. A grey picture stays itself."""
    if picture.shape[2] == 1:
        return picture.copy()
    swapped = np.empty(picture.shape, np.uint8)
    for to, channel in enumerate(order):
        swapped[..., to] = picture[..., "RGB".index(channel)]
    return swapped


def jitter(picture: np.ndarray, *, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, then contrast, then saturation, each by a factor drawn evenly from 1 ± strength."""
    factors = rng.uniform(1 - strength, 1 + strength, 3)
    planes = _planes(picture)
    for change, factor in zip((_brightness, _contrast, _saturation), factors, strict=True):
        planes = change(planes, factor)
    return _joined(planes)


def _signed(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """float32, the values ≥ 0, with the other's signs; np.copysign takes three times as long."""
    sign = like.view(np.uint32) & np.uint32(1 << 31)
    return (values.view(np.uint32) | sign).view(np.float32)


def _planes(picture: np.ndarray) -> np.ndarray:
    """uint8 [h, w, c] → float32 [c, h, w]: arithmetic on whole planes takes a fifth of the time."""
    return picture.transpose(2, 0, 1).astype(np.float32, order="C")


def _joined(planes: np.ndarray) -> np.ndarray:
    """float32 [c, h, w] of 0…255 → uint8 [h, w, c], halves to even. The planes are used up."""
    picture = np.empty((*planes.shape[1:], len(planes)), np.uint8)
    for channel, plane in enumerate(np.rint(planes, out=planes).astype(np.uint8)):
        picture[..., channel] = plane
    return picture


def _luma(planes: np.ndarray) -> np.ndarray:
    """float32 [1 or 3, h, w] → [h, w], new: grey as ITU-R BT.601 weighs it, as Pillow does."""
    if len(planes) == 1:
        return planes[0].copy()
    red, green, blue = planes
    return red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)


def _brightness(values: np.ndarray, factor: float) -> np.ndarray:
    return _away_from(np.float32(0), values, factor)


def _contrast(planes: np.ndarray, factor: float) -> np.ndarray:
    """About the mean of the luma, rounded to a grey level as Pillow does."""
    mean = np.floor(np.rint(_luma(planes)).mean(dtype=np.float64) + 0.5)
    return _away_from(np.float32(mean), planes, factor)


def _saturation(planes: np.ndarray, factor: float) -> np.ndarray:
    """About each pixel's own luma; a grey picture stays itself."""
    return _away_from(_luma(planes), planes, factor)


def _away_from(pivot: np.ndarray | np.float32, values: np.ndarray, factor: float) -> np.ndarray:
    """pivot + (values − pivot) × factor, clipped to 0…255; written into the values, float32."""
    values -= pivot
    values *= np.float32(factor)
    values += pivot
    return np.clip(values, 0, 255, out=values)


register(
    Transform(
        name="exposure",
        apply=exposure,
        parameters={"factor": Parameter(0, 100, unit="times as bright")},
        level="factor",
        severities=(0.8, 0.6, 0.4, 0.2, 0.1),
        summary="Every value times a factor; below 1 is darker, above 1 brighter.",
        family="colour",
        sweep=Sweep(1, 0.01, logarithmic=True),
    )
)
register(
    Transform(
        name="gamma",
        apply=gamma,
        parameters={"exponent": Parameter(0.05, 20)},
        level="exponent",
        severities=(1.2, 1.5, 2, 2.5, 3),
        summary="Every value in 0 … 1 to the power of an exponent; above 1 is darker, below 1 brighter.",
        family="colour",
        sweep=Sweep(1, 10, logarithmic=True),
    )
)
register(
    Transform(
        name="hue",
        apply=hue,
        parameters={"degrees": Parameter(-360, 360, unit="degrees")},
        level="degrees",
        severities=(15, 30, 60, 120, 180),
        summary="Hue turned by an angle in degrees, red towards green.",
        family="colour",
        sweep=Sweep(0, 180),
    )
)
register(
    Transform(
        name="posterise",
        apply=posterise,
        parameters={"bits": Parameter(1, 8, whole=True, unit="bits")},
        level="bits",
        severities=(6, 5, 4, 3, 2),
        summary="Fewer levels: the level is how many bits of each value are kept.",
        family="colour",
    ),
    aliases=("posterize",),
)
register(
    Transform(
        name="solarise",
        apply=solarise,
        parameters={"threshold": Parameter(0, 256, unit="grey levels")},
        level="threshold",
        severities=(224, 192, 128, 96, 64),
        summary="Values from a threshold on are inverted; the level is the threshold, 256 the picture itself.",
        family="colour",
        sweep=Sweep(256, 0),
    ),
    aliases=("solarize",),
)
register(
    Transform(
        name="grey",
        apply=grey,
        parameters={"amount": Parameter(0, 1, unit="of the way")},
        level="amount",
        severities=(0.2, 0.4, 0.6, 0.8, 1),
        summary="Colours fade to grey; the level is how much of the way they go.",
        family="colour",
        suffix=False,
        sweep=Sweep(0, 1),
    ),
    aliases=("gray", "grayscale"),
)
register(
    Transform(
        name="channel_swap",
        apply=channel_swap,
        parameters={"order": Parameter(choices=ORDERS, default="BGR")},
        level="order",
        severities=({"order": "BGR"},),
        summary="Channels in another order, BGR unless `order` says otherwise.",
        family="colour",
        suffix=False,
    )
)
register(
    Transform(
        name="jitter",
        apply=jitter,
        parameters={"strength": Parameter(0, 1, unit="of the factor")},
        level="strength",
        severities=(0.1, 0.25, 0.4, 0.6, 0.9),
        summary="Random brightness, contrast and saturation, each by a factor within 1 ± strength.",
        family="colour",
        suffix=False,
        random=True,
        sweep=Sweep(0, 1),
    )
)
