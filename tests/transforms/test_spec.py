"""The grammar of specs: what is read, what it is called, and what is said when it can't be read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, Parameter, Transform, at_severity, parse


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("blur51", "blur51"),
        ("blur:size=51", "blur51"),
        ("blur51.0", "blur51"),
        ("blur51:sigma=2", "blur51:sigma=2"),
        ("blur:sigma=2.50,size=3", "blur3:sigma=2.5"),
        ("noise:std=0.1", "noise:std=0.1"),
        ("noise0.1", "noise:std=0.1"),
        ("noise1e-1", "noise:std=0.1"),
        ("noise.1", "noise:std=0.1"),
        ("rotate30", "rotate30"),
        ("rotate-30", "rotate-30"),
        ("rotate-0", "rotate0"),
        ("rotate30:fill=edge", "rotate30"),  # the default goes unsaid
        ("rotate30:fill=black", "rotate30:fill=black"),
        ("brightness1.5", "brightness1.5"),
        ("contrast2", "contrast2"),
        ("jitter:strength=0.3", "jitter:strength=0.3"),
        ("blur51:sigma=2+noise:std=0.1", "blur51:sigma=2+noise:std=0.1"),
        (" blur : size = 51 , sigma = 2 + noise0.1 ", "blur51:sigma=2+noise:std=0.1"),
        ("blur", "blur13"),  # severity 3
        ("rotate:fill=white", "rotate20:fill=white"),
    ],
)
def test_canonical_names(spec, canonical):
    chain = parse(spec)
    assert chain.name == canonical
    assert parse(chain.name) == chain


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "can't read ''"),
        ("blur3+", "can't read ''"),
        ("51", "can't read '51'"),
        ("blur51x", "can't read 'blur51x'"),
        ("blur 3 4", "can't read 'blur 3 4'"),
        ("noise0.1.2", "can't read 'noise0.1.2'"),
        ("blurr3", "unknown transform 'blurr'; did you mean blur?"),
        ("Blur3", "did you mean blur?"),
        ("zzzz", "known: blur, trick, brightness, contrast, jitter, rotate, noise"),
        ("blur3:sigm=2", "unknown parameter 'sigm'; did you mean sigma?"),
        ("blur3:q=2", "unknown parameter 'q'; blur knows size, sigma"),
        ("blur3:", "expected key=value"),
        ("blur3:sigma", "expected key=value after ':', not 'sigma'"),
        ("blur3:sigma=", "expected key=value"),
        ("blur3:=2", "expected key=value"),
        ("blur3:sigma=2,", "expected key=value"),
        ("blur3:sigma=2,sigma=3", "sigma is given twice"),
        ("blur3:size=5", "size is given twice"),
        ("blur4", "size must be odd, not '4'"),
        ("blur0", "size must lie in 1 … 999, not '0'"),
        ("blur-3", "size must lie in 1 … 999"),
        ("blur3.5", "size must be an odd number"),
        ("blur1e9", "size must lie in 1 … 999"),
        ("blur" + "9" * 400, "size must lie in 1 … 999"),
        ("blur3:sigma=0", "sigma must lie in 0.01 … 500"),
        ("blur3:sigma=nan", "sigma must be a number, not 'nan'"),
        ("noise:std=inf", "std must be a number"),
        ("noise:std=1_0", "std must be a number"),
        ("noise:std=٣", "std must be a number"),
        ("noise-0.1", "std must lie in 0 … 10"),
        ("rotate361", "degrees must lie in -360 … 360"),
        ("rotate30:fill=pink", "fill must be one of edge, black, white, not 'pink'"),
        ("brightness-1", "factor must lie in 0 … 100"),
        ("contrast101", "factor must lie in 0 … 100"),
        ("jitter1.5", "strength must lie in 0 … 1"),
        ("noise0.1+blur4", "size must be odd"),
    ],
)
def test_what_is_said_about_a_bad_spec(spec, message):
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_registry_order_is_that_of_the_files():
    assert list(TRANSFORMS) == ["blur", "trick", "brightness", "contrast", "jitter", "rotate", "noise"]


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_severities_set_the_level(name):
    transform = TRANSFORMS.get(name)
    for severity, level in enumerate(transform.severities, 1):
        chain = at_severity(name, severity)
        assert chain.links[0].parameters[transform.level] == level
        assert parse(chain.name) == chain
    assert parse(name) == at_severity(name, 3)


def test_severity_keeps_the_other_parameters_and_reaches_every_link():
    assert at_severity("rotate:fill=black+noise", 1).name == "rotate5:fill=black+noise:std=0.05"


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_unknown_severity(severity):
    with pytest.raises(UsageError, match="severity must be 1 … 5"):
        at_severity("blur", severity)


def test_severity_of_a_settled_level():
    with pytest.raises(UsageError, match="size is set by the severity"):
        at_severity("blur51", 3)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        chain = parse(text)
    except UsageError:
        return
    assert parse(chain.name) == chain


@given(st.floats(0, 10))
def test_canonical_name_keeps_the_value_exactly(std):
    chain = parse(f"noise:std={std!r}".replace("e+", "e"))
    assert chain.links[0].parameters["std"] == std
    assert parse(chain.name) == chain


def test_chains_travel_to_other_processes():
    chain = parse("blur5+noise0.1")
    assert chain.name == "blur5+noise:std=0.1"  # a cached name travels along or is made again
    again = pickle.loads(pickle.dumps(chain))
    assert again == chain and hash(again) == hash(chain)
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(again(picture), chain(picture))


def test_a_transform_is_checked_when_it_is_made():
    def apply(picture, *, rng, level):
        return picture

    parameters = {"level": Parameter(0, 1)}
    with pytest.raises(ValueError, match="5 severities"):
        Transform("fog", apply, parameters, "level", (0.1, 0.2), "Fog.")
    with pytest.raises(ValueError, match="must lie in 0 … 1"):
        Transform("fog", apply, parameters, "level", (0.1, 0.2, 0.3, 0.4, 5), "Fog.")
    with pytest.raises(ValueError, match="lower-case"):
        Transform("fog2", apply, parameters, "level", (0.1, 0.2, 0.3, 0.4, 0.5), "Fog.")
