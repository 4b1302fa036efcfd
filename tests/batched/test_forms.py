"""Batched forms on CPU tensors: the bytes that their transforms give picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hw4fast.batched import FORMS, TorchBatches, apply, batches, forms, knows
from hw4fast.data.preprocessing import PRESETS, Preprocessing
from hw4fast.errors import UsageError
from hw4fast.robustness.points import points_of
from hw4fast.transforms import TRANSFORMS, at_level, parse
from hw4fast.transforms.own import transform
from hw4fast.transforms.randomness import picture_key

GREY = Preprocessing("L", (20, 24), (0.5,), (0.25,), resize="shorter-side", resize_size=30)
BGR = Preprocessing("BGR", (33, 17), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), interpolation="nearest", divisor=128.0)
WAYS = {"imagenet": PRESETS["imagenet"], "grey": GREY, "bgr-nearest": BGR}


def photographs(n, shape, seed=0):
    """Soft shapes with noise, flat black and white, and what lies between."""
    rng = np.random.default_rng(seed)
    h, w, c = shape
    coarse = rng.integers(0, 256, (n, -(-h // 8), -(-w // 8), c), np.uint8).repeat(8, 1).repeat(8, 2)[:, :h, :w]
    noisy = np.clip(coarse + rng.normal(0, 20, (n, h, w, c)), 0, 255).astype(np.uint8)
    noisy[0] = rng.integers(0, 256, shape)
    if n > 2:
        noisy[1], noisy[2] = 0, np.where(rng.random((h, w, 1)) < 0.5, 255, noisy[2, ..., :1])  # grey pixels, too
    return noisy


def compared(chain, pictures, seed=3, decoded=(), preprocessing=None):
    """(the batched form's, the transform's) of uint8 [n, h, w, c]."""
    keys = [picture_key(picture) for picture in pictures]
    found = apply(chain, torch.from_numpy(pictures), keys, seed, [torch.from_numpy(d) for d in decoded], preprocessing)
    given = decoded or [None] * len(pictures)
    wanted = [
        chain(picture, seed=seed, key=key, decoded=one, preprocessing=preprocessing)
        for picture, key, one in zip(pictures, keys, given, strict=True)
    ]
    assert found.dtype is torch.uint8
    return found.numpy(), np.stack(wanted)


POINTS = [p for p in points_of(list(FORMS))[1:] if not p.reads]
READING = [p for p in points_of(list(FORMS))[1:] if p.reads]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.spec)
@pytest.mark.parametrize("shape", [(64, 64, 3), (33, 50, 3), (28, 28, 1)], ids=str)
def test_every_severity(point, shape):
    found, wanted = compared(point.chain, photographs(4, shape))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", [n for n in FORMS if TRANSFORMS.get(n).sweep and not TRANSFORMS.get(n).reads])
def test_all_along_the_sweep(name):
    transform, pictures = TRANSFORMS.get(name), photographs(3, (40, 30, 3), 1)
    for share in np.linspace(0, 1, 12):
        found, wanted = compared(at_level(transform, float(transform.sweep.at(share))), pictures)
        assert np.array_equal(found, wanted), share


@pytest.mark.parametrize("name", [n for n in FORMS if not TRANSFORMS.get(n).reads])
def test_at_the_size_of_photographs(name):
    found, wanted = compared(parse(name), photographs(2, (224, 224, 3), 2))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "spec",
    [
        *(f"{name}:{rest}" for name in ("rotate30", "shear20", "scale0.6", "perspective:distortion=0.4")
          for rest in ("fill=black", "fill=white")),
        "rotate360", "rotate-90", "scale1.7", "scale20", "scale0.05", "translate:right=-1,down=0.3,fill=white",
        "flip:axis=vertical", "flip:axis=both", "channel_swap:order=GRB", "blur1", "blur999", "blur51:sigma=0.01",
        "blur31:sigma=500", "exposure100", "hue-200", "posterise8", "crop:share=0.01", "saturate0:offset=1",
        "blur5+jitter+rotate10:fill=black+perspective", "jitter:strength=1+jitter:strength=1",
    ],
)  # fmt: skip
def test_what_parameters_and_chains_say(spec):
    spec = spec.replace("perspective:distortion=0.4:", "perspective:distortion=0.4,")
    for shape in ((37, 52, 3), (1, 1, 3), (5, 2, 1)):
        found, wanted = compared(parse(spec), photographs(3, shape, 4))
        assert np.array_equal(found, wanted), shape


KINDS = ["interpolation:kind=" + kind for kind in ("nearest", "bilinear", "bicubic", "lanczos")]
KINDS += ["framing:kind=tight", "framing:kind=crop-first", "normalisation:kind=half", "thumbnail3", "framing+blur3"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spec", [*(point.spec for point in READING), *KINDS])
def test_mistakes_of_reading(spec, way):
    chain, preprocessing = parse(spec), WAYS[way]
    sizes = [(90, 120, 3), (64, 47, 3), (90, 120, 3), (31, 200, 1), (280, 300, 3), (64, 47, 1)]
    decoded = [photographs(1, size, seed)[0] for seed, size in enumerate(sizes)]
    fitted = np.stack([preprocessing.fit(picture) for picture in decoded])
    found, wanted = compared(chain, fitted, decoded=decoded, preprocessing=preprocessing)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("quality", [1, 50, 85, 100])
def test_reencode_of_few_pixels(quality):
    sizes = [
        (h, w, c) for c in (1, 3) for h, w in ((1, 1), (1, 40), (40, 1), (9, 2), (2, 3), (17, 4), (6, 5), (33, 31))
    ]
    decoded = [photographs(1, size, seed)[0] for seed, size in enumerate(sizes)]
    fitted = np.stack([GREY.fit(picture) for picture in decoded])
    found, wanted = compared(parse(f"reencode{quality}"), fitted, decoded=decoded, preprocessing=GREY)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", [n for n in FORMS if not TRANSFORMS.get(n).reads])
def test_no_pictures(name):
    assert apply(parse(name), torch.zeros(0, 20, 30, 3, dtype=torch.uint8), [], 0).shape == (0, 20, 30, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["contrast", "elastic", "fog", "frost", "jitter", "snow", "spatter"])
def test_torchs_default_dtype_does_not_matter(name, dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        found, wanted = compared(parse(name), photographs(3, (40, 30, 3)))
    finally:
        torch.set_default_dtype(before)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("spec", "at_once"), [("spatter", 2), ("snow", 2), ("frost", 2), ("fog", 8), ("blur5", 10)])
def test_fields_larger_than_their_pictures_count(monkeypatch, spec, at_once):
    given, real = [], forms.apply
    monkeypatch.setattr(forms, "apply", lambda chain, some, *rest: given.append(len(some)) or real(chain, some, *rest))
    monkeypatch.setattr(batches, "AT_ONCE", {"frost": 3}.get(spec, 1) * (8 * 32**2 if spec == "fog" else 2 * 224**2))
    pictures = photographs(10, (28, 28, 1))
    made = TorchBatches("cpu").apply(parse(spec), list(torch.from_numpy(pictures)), [b"%d" % i for i in range(10)], 0)
    assert made.shape == (10, 28, 28, 1) and max(given) == at_once


def test_every_transform_has_a_form_but_a_users_own():
    assert {name for name in TRANSFORMS if not TRANSFORMS.get(name).fingerprint} == set(FORMS)
    pictures = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)

    @transform(severities=(1, 2, 3, 4, 5))
    def paler(picture, by):
        return picture // 2 + by

    try:
        assert knows(parse("blur5+rotate10")) and not knows(parse("blur5+paler2"))
        with pytest.raises(UsageError, match="batched form 'paler'"):
            apply(parse("paler2"), pictures, [b""], 0)
    finally:
        TRANSFORMS.remove("paler")
    for keys, error in (([], ValueError), ([b"", b""], ValueError), (["a"], TypeError)):
        for spec in ("snow3", "blur5"):  # with chance, and without
            with pytest.raises(error, match="key"):
                apply(parse(spec), pictures, keys, 0)
    for arguments, words in ((("snow3", pictures), "chain is"), ((parse("snow3"), pictures.numpy()), "are a tensor")):
        with pytest.raises(TypeError, match=words):
            apply(*arguments, [b""], 0)
    for other in (pictures.permute(0, 3, 1, 2), pictures.float(), pictures[0], pictures[:, :0]):
        with pytest.raises(ValueError, match=r"pictures (are|must have)"):
            apply(parse("blur5"), other, [b""], 0)
    with pytest.raises(ValueError, match="as they were decoded"):
        apply(parse("framing"), pictures, [b""], 0)
