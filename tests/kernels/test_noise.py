"""Random numbers from counters, and the noise made of them: known answers, distributions, the same bytes everywhere."""

import numpy as np
import pytest
from scipy import stats

from hw4fast import kernels
from hw4fast.kernels import noise as card
from tests.kernels.arrays import misaligned
from tests.kernels.comparing import calls_during, error
from tests.kernels.walls import walled

CASES = list(card.cases())
ISAS = kernels.isas()
KEY = 0x0123456789ABCDEF
ERRORS = 5  # standard errors that a moment may lie beside its expectation: one test in two million is red by chance
KINDS = {
    "gaussian": lambda picture, key, isa: card.gaussian_noise(picture, 0.18, key, isa=isa),
    "speckle": lambda picture, key, isa: card.speckle_noise(picture, 0.35, key, isa=isa),
    "impulse": lambda picture, key, isa: card.impulse_noise(picture, 0.09, key, isa=isa),
    "shot": lambda picture, key, isa: card.shot_noise(picture, 12, key, isa=isa),
    "normal": lambda picture, key, isa: card.normal(picture.shape, key, isa=isa),
    "uniform": lambda picture, key, isa: card.uniform(picture.shape, key, isa=isa),
}


# -- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123's kat_vectors, philox4x32 10
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_reference_gives_the_known_answers(counter, key, answer):
    assert tuple(card.philox(np.array([counter], np.uint32), key)[0].tolist()) == answer


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("key", "stream"), [(0, 0), (KEY, 3), (2**64 - 1, 2**32 - 1)])
def test_the_kernels_words_are_the_references(key, stream, isa):
    """Their upper 24 bits are an even number's; the lowest bit of each says whether a grain is white."""
    n = 1000
    words = card.words(n, key, stream)
    upper = card.uniform(n, key, stream, isa=isa) * 2.0**24
    assert np.array_equal(upper, words >> 8)
    white = card.impulse_noise(np.full(n, 7, np.uint8), 1.0, key, isa=isa)
    assert np.array_equal(white, np.where(card.words(n, key) & 1, 255, 0))
    assert card.uniform(3, 0)[0] == (0x6627E8D5 >> 8) / 2**24  # the first known answer, through the kernel


@pytest.mark.parametrize("isa", ISAS)
def test_normals_are_the_references(isa):
    n = 400_000
    assert error(card.normal(n, KEY, 2, isa=isa), card.normal_reference(n, KEY, 2)) < 2e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_bytes_on_every_instruction_set(case, kind):
    picture, _, key = case.make()
    before = picture.copy()
    results = [KINDS[kind](picture, key, isa) for isa in ISAS]
    assert results[0].shape == picture.shape and results[0].flags.c_contiguous
    assert results[0].dtype == (np.float32 if kind in ("normal", "uniform") else np.uint8)
    for isa, result in zip(ISAS, results, strict=True):
        np.testing.assert_array_equal(result, results[0], err_msg=isa)
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shorter_one_begins_as_a_longer_one(kind):
    picture = np.random.default_rng(0).integers(0, 256, 1009, np.uint8)
    whole = KINDS[kind](picture, KEY, "")
    for n in (1, 15, 64, 65, 1000):
        assert np.array_equal(KINDS[kind](picture[:n], KEY, ""), whole[:n])


# -- distributions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [0, 1, KEY])
def test_normals_are_normal(key):
    n = 1_000_000
    x = card.normal(n, key).astype(np.float64)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # of x^power
        assert abs((x**power).mean() - mean) < ERRORS * np.sqrt(variance / n), power
    assert stats.kstest(x, "norm").statistic < 2.5 / np.sqrt(n)  # exceeded once in 134,000: 2 exp(−2 · 2.5²)
    for limit in (1, 2, 3, 4):
        share = 2 * stats.norm.sf(limit)
        assert abs((np.abs(x) > limit).mean() - share) < ERRORS * np.sqrt(share / n), limit


@pytest.mark.parametrize("key", [0, 1, KEY])
def test_even_numbers_are_even(key):
    n = 1_000_000
    x = card.uniform(n, key).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    assert stats.kstest(x, "uniform").statistic < 2.5 / np.sqrt(n)
    assert abs(x.mean() - 0.5) < ERRORS / np.sqrt(12 * n)
    bits = (x * 2**24).astype(np.int64)
    assert all(abs((bits >> bit & 1).mean() - 0.5) < ERRORS * 0.5 / np.sqrt(n) for bit in range(24))


@pytest.mark.parametrize("draw", [card.normal, card.uniform], ids=["normal", "uniform"])
def test_nothing_is_correlated(draw):
    """Neighbours at every distance within two blocks and a row, keys one bit apart, streams, and all their squares."""
    n = 200_000
    x = draw(n, KEY).astype(np.float64)
    others = {f"{distance} on": draw(n + distance, KEY)[distance:] for distance in (*range(1, 129), 224, 672)}
    others |= {f"bit {bit}": draw(n, KEY ^ 1 << bit) for bit in (0, 1, 31, 32, 63)}
    others |= {f"stream {stream}": draw(n, KEY, stream) for stream in (1, 2, 2**31)}
    for name, other in others.items():
        for a, b in ((x, other.astype(np.float64)), (x**2, other.astype(np.float64) ** 2)):
            assert abs(np.corrcoef(a, b)[0, 1]) < (ERRORS + 0.5) / np.sqrt(n), name


@pytest.mark.parametrize("std", [0.08, 0.38])
def test_gaussian_noise_is_rounded_down(std):
    """What the formula gives, but for the values that lie within float32's rounding of a whole number."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    exact = picture + 255 * std * card.normal_reference(picture.size, KEY).reshape(picture.shape)
    near = np.abs(exact - np.rint(exact)) < 1e-3
    result = card.gaussian_noise(picture, std, KEY)
    assert np.array_equal(result[~near], np.clip(exact, 0, 255).astype(np.uint8)[~near]) and near.mean() < 0.01
    exact = picture * (1 + std * card.normal_reference(picture.size, KEY).reshape(picture.shape))
    near = np.abs(exact - np.rint(exact)) < 1e-3
    result = card.speckle_noise(picture, std, KEY)
    assert np.array_equal(result[~near], np.clip(exact, 0, 255).astype(np.uint8)[~near])


def test_speckle_leaves_black_and_spreads_white():
    assert not card.speckle_noise(np.zeros(5000, np.uint8), 0.6, KEY).any()
    n = 100_000
    white = card.speckle_noise(np.full(n, 255, np.uint8), 0.1, KEY)
    assert abs((white == 255).mean() - 0.5) < ERRORS * 0.5 / np.sqrt(n)
    below = white[white < 255] + 0.5 - 255
    assert np.sqrt((below**2).mean()) == pytest.approx(25.5, rel=0.02)


@pytest.mark.parametrize("amount", [0.0, 0.03, 0.27, 0.9, 1.0])
def test_impulses_have_their_shares(amount):
    n = 500_000
    result = card.impulse_noise(np.full(n, 100, np.uint8), amount, KEY)
    assert set(np.unique(result).tolist()) <= {0, 100, 255}
    for value, share in ((0, amount / 2), (100, 1 - amount), (255, amount / 2)):
        assert abs((result == value).mean() - share) <= ERRORS * np.sqrt(share * (1 - share) / n), value


@pytest.mark.parametrize("photons", [60, 12, 3, 2.5, 0.3, 600, 1, 64, 0.01])
def test_shot_noise_is_poissons(photons):
    """Chi-square of the counts against scipy's probabilities of the grey levels that numbers of photons make."""
    n, white = 200_000, int(np.ceil(photons))
    numbers = np.arange(white)
    grey = (np.clip(numbers / photons, 0, 1) * 255).astype(np.uint8)
    assert (card.shot_noise(np.zeros(n, np.uint8), photons, KEY) == 0).all()
    for x in (1, 20, 128, 200, 255):
        mean = x / 255 * photons
        counts = np.bincount(card.shot_noise(np.full(n, x, np.uint8), photons, KEY + x), minlength=256)
        expected = n * np.bincount(grey, stats.poisson.pmf(numbers, mean), minlength=256)
        expected[255] += n * stats.poisson.sf(white - 1, mean)
        assert not counts[expected == 0].any()
        likely = expected >= 5
        chi = ((counts[likely] - expected[likely]) ** 2 / expected[likely]).sum()
        assert chi < stats.chi2.isf(1e-6, likely.sum()), x
        rare = expected[~likely].sum()
        assert counts[~likely].sum() <= rare + ERRORS * np.sqrt(rare) + ERRORS, x


def test_values_of_one_picture_are_noisy_for_themselves():
    flat = np.full((200, 200, 3), 128, np.uint8)
    for kind in ("gaussian", "speckle", "impulse", "shot"):
        changes = KINDS[kind](flat, KEY, "").astype(np.float64).reshape(-1, 3) - 128
        correlations = np.corrcoef(changes.T) - np.eye(3)
        assert np.abs(correlations).max() < (ERRORS + 0.5) / np.sqrt(len(changes)), kind


def test_no_noise_is_the_picture():
    picture = np.random.default_rng(1).integers(0, 256, (33, 21, 3), np.uint8)
    for result in (
        card.gaussian_noise(picture, 0.0, KEY),
        card.speckle_noise(picture, 0, KEY),
        card.impulse_noise(picture, 0.0, KEY),
        card.shuffle(picture, 3, 0, KEY),
        card.shuffle(picture, 100, 5, KEY),
    ):
        assert np.array_equal(result, picture) and not np.shares_memory(result, picture)


# -- shuffle -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("h", "w", "c"), [(31, 22, 3), (9, 40, 1), (5, 5, 4), (1, 1, 3), (2, 9, 3), (0, 4, 3)])
@pytest.mark.parametrize(("reach", "turns"), [(1, 2), (2, 3), (4, 1), (7, 1)])
def test_shuffle_is_the_references(h, w, c, reach, turns, isa):
    picture = np.random.default_rng(0).integers(0, 256, (h, w, c), np.uint8)
    before = picture.copy()
    result = card.shuffle(picture, reach, turns, KEY, isa=isa)
    np.testing.assert_array_equal(result, card.shuffle_reference(picture, reach, turns, KEY))
    assert np.array_equal(picture, before)
    assert np.array_equal(result[: reach + 1], picture[: reach + 1])
    assert np.array_equal(result[:, : reach + 1], picture[:, : reach + 1])
    pixels = {tuple(pixel) for pixel in picture.reshape(-1, c).tolist()}
    assert {tuple(pixel) for pixel in result.reshape(-1, c).tolist()} <= pixels


# -- memory, variants, what can't be done ------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
def test_the_forced_variant_is_the_one_that_ran(isa):
    picture, std, key = CASES[0].make()
    wanted = {i: int(i == isa) for i in ISAS}
    assert calls_during("noise", lambda: card.variants()[f"cpp-{isa}"](picture, std, key)) == wanted


def test_any_strides():
    picture = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    views = (
        np.asfortranarray(picture),
        np.repeat(picture, 2, 1)[:, ::2],
        np.ascontiguousarray(picture[::-1])[::-1],
        misaligned(picture),
    )
    for view in views:
        for kind in ("gaussian", "speckle", "impulse", "shot"):
            assert np.array_equal(KINDS[kind](view, KEY, ""), KINDS[kind](picture, KEY, "")), kind
        assert np.array_equal(card.shuffle(view, 2, 1, KEY), card.shuffle(picture, 2, 1, KEY))
    number = np.array(7, np.uint8)
    assert card.gaussian_noise(number, 0.1, KEY).shape == ()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_no_memory_beside_the_arrays_is_touched(n, isa):
    picture = np.random.default_rng(n).integers(0, 256, n, np.uint8)
    run = kernels.compiled().noise
    table, bits = card.shot_table(12.0)
    for source, output, drawn, columns in walled(picture, picture, np.zeros(n, np.float32), table):
        for kind, name in enumerate(card.KINDS):
            floats = name in ("normal", "uniform")
            to = drawn if floats else output
            strength = 0.0 if floats or name == "shot" else 0.2 * (255 if name == "gaussian" else 1)
            run(kind, source.ctypes.data, to.ctypes.data, n, strength, columns.ctypes.data, bits, KEY, 0, isa)
        assert np.array_equal(drawn, card.uniform(n, KEY)) and np.array_equal(source, picture)
    for shaken, made in walled(np.zeros((9, n, 3), np.uint8), np.zeros_like(table)):
        kernels.compiled().shuffle(shaken.ctypes.data, shaken.shape, 2, 3, KEY, isa)
        kernels.compiled().shot_table(12.0, bits, made.ctypes.data)
        assert np.array_equal(made, table)


NOISES = (card.gaussian_noise, card.speckle_noise, card.impulse_noise, card.shot_noise)


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.__name__)
def test_bad_input_raises(noise):
    picture = np.zeros((4, 4, 3), np.uint8)
    for dtype in (np.int8, np.float32, np.uint16, bool):
        with pytest.raises(TypeError, match="must be uint8"):
            noise(picture.astype(dtype), 0.5, KEY)
    for strength in (-0.1, float("nan"), float("inf"), -float("inf"), 1e9):
        with pytest.raises(ValueError, match="must"):
            noise(picture, strength, KEY)
    for key in (-1, 2**64, 1.5, None, "key"):
        with pytest.raises(TypeError):
            noise(picture, 0.5, key)
    with pytest.raises(ValueError, match="'sse9' is not to be had here"):
        noise(picture, 0.5, KEY, isa="sse9")
    with pytest.raises((AttributeError, TypeError)):
        noise([[0, 1]], 0.5, KEY)


def test_numbers_out_of_range_raise():
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="amount must lie in 0 … 1"):
        card.impulse_noise(picture, 1.01, KEY)
    for photons in (0, 600.001):
        with pytest.raises(ValueError, match="photons must lie in 0 … 600"):
            card.shot_noise(picture, photons, KEY)
    for draw in (card.normal, card.uniform):
        with pytest.raises(ValueError, match="negative"):
            draw((-1, 3), KEY)
        for key, stream in ((-1, 0), (2**64, 0), (0, -1), (0, 2**32), (0.5, 0)):
            with pytest.raises(TypeError):
                draw(3, key, stream)
    for arguments in ((0, 1), (-1, 1), (16384, 1), (1, -1), (1, 1001)):
        with pytest.raises(ValueError, match="reach"):
            card.shuffle(picture, *arguments, KEY)
    for shape in ((4, 4), (4, 4, 0), (1, 4, 4, 3)):
        with pytest.raises(ValueError, match="shuffle"):
            card.shuffle(np.zeros(shape, np.uint8), 1, 1, KEY)
    with pytest.raises(TypeError, match="uint8"):
        card.shuffle(picture.astype(int), 1, 1, KEY)
    with pytest.raises(TypeError):
        card.shuffle(picture, 1.5, 1, KEY)


def test_the_compiled_functions_refuse_what_would_leave_their_memory():
    picture = np.zeros(64, np.uint8)
    table, bits = card.shot_table(12.0)
    address = picture.ctypes.data
    good = {"kind": 0, "input": address, "output": address, "size": 64, "strength": 0.5, "table": table.ctypes.data}
    good |= {"bits": bits, "key": KEY, "stream": 0}
    kernels.compiled().noise(**good)
    for change in (
        {"kind": -1}, {"kind": 6}, {"size": -1}, {"size": -(2**63)}, {"strength": -1.0}, {"strength": float("nan")},
        {"strength": 2e6}, {"kind": 3, "table": 0}, {"kind": 3, "bits": 0}, {"kind": 3, "bits": 17}, {"input": 0},
        {"output": 0}, {"kind": 4, "output": 0}, {"kind": 2, "strength": 1.5},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="noise"):
            kernels.compiled().noise(**{**good, **change})
    for shape, reach, turns in (((-4, 4, 3), 1, 1), ((4, -4, 3), 1, 1), ((4, 4, 0), 1, 1), ((4, 4, -1), 1, 1),
                                ((4, 4, 3), 0, 1), ((4, 4, 3), 2**14, 1), ((4, 4, 3), 1, -1)):  # fmt: skip
        with pytest.raises(ValueError, match="shuffle"):
            kernels.compiled().shuffle(address, shape, reach, turns, KEY)
    with pytest.raises(ValueError, match="shuffle was given an array without memory"):
        kernels.compiled().shuffle(0, (4, 4, 3), 1, 1, KEY)
    for photons, wide in ((0.0, 4), (-1.0, 4), (601.0, 10), (float("nan"), 4), (16.0, 4), (12.0, 0), (12.0, 17)):
        with pytest.raises(ValueError, match="photons"):
            kernels.compiled().shot_table(photons, wide, table.ctypes.data)
    with pytest.raises(ValueError, match="photons"):
        kernels.compiled().shot_table(12.0, 4, 0)
