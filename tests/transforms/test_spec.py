"""The grammar of specs: what is read, what it is called, and what is said when it can't be read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw4fast.errors import UsageError
from hw4fast.transforms import TRANSFORMS, Parameter, Sweep, Transform, at_level, at_severity, parse
from hw4fast.transforms.spec import ALIASES, SEVERITY, register

NAMES = list(TRANSFORMS)
STRONG = [name for name in NAMES if not TRANSFORMS.get(name).fixed]
BETWEEN = [name for name in NAMES if TRANSFORMS.get(name).origin is not None]


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("blur51", "blur51"),
        ("blur:size=51", "blur51"),
        ("blur51.0", "blur51"),
        ("blur51:sigma=2", "blur51:sigma=2"),
        ("blur:sigma=2.50,size=3", "blur3:sigma=2.5"),
        ("gaussian_noise:std=0.1", "gaussian_noise:std=0.1"),
        ("gaussian_noise0.1", "gaussian_noise:std=0.1"),
        ("noise0.1", "gaussian_noise:std=0.1"),
        ("noise1e-1", "gaussian_noise:std=0.1"),
        ("noise.1", "gaussian_noise:std=0.1"),
        ("shot_noise12", "shot_noise12"),
        ("shot_noise:photons=2.5", "shot_noise2.5"),
        ("rotate30", "rotate30"),
        ("rotate-30", "rotate-30"),
        ("rotate-0", "rotate0"),
        ("rotate30:fill=edge", "rotate30"),  # the default goes unsaid
        ("rotate30:fill=black", "rotate30:fill=black"),
        ("brightness0.1", "brightness:amount=0.1"),
        ("contrast:factor=0.3", "contrast:factor=0.3"),
        ("jitter:strength=0.3", "jitter:strength=0.3"),
        ("blur51:sigma=2+gaussian_noise:std=0.1", "blur51:sigma=2+gaussian_noise:std=0.1"),
        (" blur : size = 51 , sigma = 2 + noise0.1 ", "blur51:sigma=2+gaussian_noise:std=0.1"),
        ("blur", "blur13"),  # severity 3
        ("rotate:fill=white", "rotate20:fill=white"),
        ("blur:severity=5", "blur51"),  # without chance the parameters say all
        ("blur:severity=2,sigma=1", "blur7:sigma=1"),
        ("defocus_blur:severity=1", "defocus_blur3:alias=0.1"),
        ("defocus_blur3", "defocus_blur3"),
        ("defocus_blur3:alias=0.5", "defocus_blur3"),
        ("zoom_blur:severity=5", "zoom_blur1.31:step=0.03"),
        ("saturate:severity=5", "saturate20:offset=0.2"),
        ("gaussian_noise", "gaussian_noise:severity=3"),  # the draws belong to the severity
        ("noise:severity=2", "gaussian_noise:severity=2"),
        ("motion_blur:severity=1,radius=5", "motion_blur:severity=1,radius=5"),
        ("motion_blur:severity=1,radius=10", "motion_blur:severity=1"),
        ("motion_blur8", "motion_blur:sigma=8"),
        ("trick2", "trick:high=2"),
        ("snow", "snow3"),
        ("snow:severity=3", "snow3"),
        ("snow2.5", "snow2.5"),
        ("snow:severity=2.50", "snow2.5"),
        ("snow3:kept=0.5", "snow3:kept=0.5"),
        ("snow3:kept=0.7", "snow3"),
        ("fog0", "fog0"),
        ("spatter4", "spatter4"),
        ("spatter4:kind=water", "spatter4:kind=water"),
        ("glass_blur1:reach=3", "glass_blur1:reach=3"),
        ("snow3+jpeg30", "snow3+jpeg30"),
        ("elastic_transform", "elastic:severity=3"),
        ("jpeg_compression30", "jpeg30"),
        ("posterize:severity=1", "posterise6"),
        ("flip", "flip:axis=horizontal"),
        ("flip:axis=both", "flip:axis=both"),
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
        ("blurr3", "unknown transform 'blurr'; did you mean blur"),
        ("Blur3", "did you mean blur"),
        ("zzzz", "known: blur, trick, gaussian_blur"),
        ("blur3:sigm=2", "unknown parameter 'sigm'; did you mean sigma?"),
        ("blur3:q=2", "unknown parameter 'q'; blur knows size, sigma, severity"),
        ("blur3:severit=2", "did you mean severity?"),
        ("blur3:", "expected key=value"),
        ("blur3:sigma", "expected key=value after ':', not 'sigma'"),
        ("blur3:sigma=", "expected key=value"),
        ("blur3:=2", "expected key=value"),
        ("blur3:sigma=2,", "expected key=value"),
        ("blur3:sigma=2,sigma=3", "sigma is given twice"),
        ("blur3:size=5", "size is given twice"),
        ("snow3:severity=3", "severity is given twice"),
        ("blur4", "size must be odd, not '4'"),
        ("blur0", "size must lie in 1 … 999, not '0'"),
        ("blur-3", "size must lie in 1 … 999"),
        ("blur3.5", "size must be an odd number"),
        ("blur1e9", "size must lie in 1 … 999"),
        ("blur" + "9" * 400, "size must lie in 1 … 999"),
        ("blur3:sigma=0", "sigma must lie in 0.01 … 500"),
        ("blur3:sigma=nan", "sigma must be a number, not 'nan'"),
        ("gaussian_noise:std=inf", "std must be a number"),
        ("gaussian_noise:std=1_0", "std must be a number"),
        ("gaussian_noise:std=٣", "std must be a number"),
        ("noise-0.1", "std must lie in 0 … 10"),
        ("shot_noise601", "photons must lie in 0.1 … 600"),
        ("impulse_noise1.1", "amount must lie in 0 … 1"),
        ("rotate361", "degrees must lie in -360 … 360"),
        ("rotate30:fill=pink", "fill must be one of edge, black, white, not 'pink'"),
        ("brightness-2", "amount must lie in -1 … 1"),
        ("contrast101", "factor must lie in 0 … 100"),
        ("jitter1.5", "strength must lie in 0 … 1"),
        ("noise0.1+blur4", "size must be odd"),
        ("jpeg30.5", "quality must be a whole number"),
        ("blur3:severity=2", "both size and severity say how strong; name one"),
        ("gaussian_noise:std=0.1,severity=2", "both std and severity say how strong; name one"),
        ("gaussian_noise:severity=2.5", "severity must be a whole number"),
        ("gaussian_noise:severity=0", "severity must lie in 1 … 5"),
        ("gaussian_noise:severity=weak", "severity must be a number"),
        ("spatter-0.5", "severity must lie in 0 … 5"),
        ("snow5.01", "severity must lie in 0 … 5"),
        ("snow-1", "severity must lie in 0 … 5"),
        ("spatter3:kind=oil", "kind must be one of water, mud, not 'oil'"),
        ("flip:severity=1", "flip has no severities; leave it out"),
        ("flip3", "axis must be one of horizontal"),
    ],
)
def test_what_is_said_about_a_bad_spec(spec, message):
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_registry_order_is_that_of_the_files():
    families = [TRANSFORMS.get(name).family for name in TRANSFORMS]
    assert families == sorted(families)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", STRONG)
def test_every_severity_of_every_transform_has_a_name_that_leads_back(name, severity):
    transform = TRANSFORMS.get(name)
    chain = at_severity(name, severity)
    link = chain.links[0]
    for key, value in transform.row(severity).items():
        assert link.parameters[key] == value
    assert parse(chain.name) == chain == parse(f"{name}:severity={severity}")
    assert parse(chain.name).name == chain.name
    assert link.draw == (severity if transform.random else 0)
    assert parse(name) == at_severity(name, 3)


@pytest.mark.parametrize("name", [name for name in NAMES if TRANSFORMS.get(name).sweep])
def test_every_level_of_a_sweep_has_a_name_that_leads_back(name):
    transform = TRANSFORMS.get(name)
    for share in (0.0, 0.13, 0.5, 0.77, 1.0):
        chain = at_level(transform, transform.sweep.at(share))
        assert parse(chain.name) == chain and chain.links[0].draw == 0
        level = chain.links[0].parameters.get(transform.level)
        assert level is None or transform.strength.check(level) == level


def test_what_changes_gradually_is_swept():
    """The others change little or nothing in between, or are of a strength that is drawn."""
    without = [name for name in NAMES if TRANSFORMS.get(name).sweep is None and not TRANSFORMS.get(name).fixed]
    assert without == ["trick", "posterise"]


@pytest.mark.parametrize("name", BETWEEN)
def test_between_whole_severities(name):
    transform = TRANSFORMS.get(name)
    assert BETWEEN == ["glass_blur", "snow", "frost", "fog", "spatter"] and transform.level == SEVERITY
    for severity in (0.5, 1.25, 4.99):
        weak, strong = transform.row(int(severity)), transform.row(int(severity) + 1)
        for key, value in transform.row(severity).items():
            if isinstance(value, str):
                assert value == strong[key]
                continue
            assert min(weak[key], strong[key]) <= value <= max(weak[key], strong[key])
            assert not transform.parameters[key].whole or isinstance(value, int)
        chain = parse(f"{name}{severity}")
        assert chain.name == f"{name}{severity}" and parse(chain.name) == chain and chain.links[0].draw == 0
    assert transform.row(2.0) == transform.row(2)
    for severity in (-0.1, 5.1, float("nan")):
        with pytest.raises(ValueError, match="must lie in 0 … 5"):
            transform.row(severity)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert np.array_equal(parse(f"{name}0")(picture), picture)
    large = np.full((700, 400, 1), 100, np.uint8)  # noise that is blurred varies more at its border
    assert all((parse(f"{name}0")(large, seed=seed) == 100).all() for seed in range(20))
    assert np.array_equal(at_level(transform, 0)(picture), picture)


def test_severity_keeps_the_other_parameters_and_reaches_every_link():
    assert at_severity("rotate:fill=black+noise", 1).name == "rotate5:fill=black+gaussian_noise:severity=1"
    assert at_severity("snow:kept=0.5+flip", 2).name == "snow2:kept=0.5+flip:axis=horizontal"


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5])
def test_unknown_severity(severity):
    with pytest.raises(UsageError, match="severity must be 1 … 5"):
        at_severity("blur", severity)


@pytest.mark.parametrize("spec", ["blur51", "blur:severity=2", "blur+rotate30", "snow3", "snow:severity=3"])
def test_severity_of_a_settled_level(spec):
    with pytest.raises(UsageError, match="is set by the severity; leave it out"):
        at_severity(spec, 3)


def test_levels_that_there_are_none_of():
    for name in ("flip", "channel_swap"):
        with pytest.raises(ValueError, match="has no levels"):
            at_level(TRANSFORMS.get(name), 1.0)
    assert at_level(TRANSFORMS.get("blur"), 4.2).name == "blur5"
    assert at_level(TRANSFORMS.get("blur"), np.float64(1e9)).name == "blur999"
    assert at_level(TRANSFORMS.get("jpeg"), 33.3, {}).name == "jpeg33"
    assert at_level(TRANSFORMS.get("snow"), 3).links == parse("snow3").links


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        chain = parse(text)
    except UsageError:
        return
    assert parse(chain.name) == chain


@given(
    st.sampled_from(NAMES),
    st.none() | st.integers(-1, 6) | st.floats(-1, 600),
    st.lists(
        st.tuples(
            st.sampled_from(["severity", *{key for name in NAMES for key in TRANSFORMS.get(name).parameters}]),
            st.integers(-1, 9).map(str) | st.floats(-1, 30).map(str) | st.sampled_from(["black", "mud", "both", "RBG"]),
        ),
        max_size=3,
    ),
)
def test_any_spec_is_read_or_refused(name, level, pairs):
    pairs = [f"{key}={value}" for key, value in pairs if key == "severity" or key in TRANSFORMS.get(name).parameters]
    spec = f"{name}{'' if level is None else level}{':' if pairs else ''}{','.join(pairs)}"
    try:
        chain = parse(spec)
    except UsageError:
        return
    again = parse(chain.name)
    assert again == chain and again.name == chain.name


@given(st.floats(0, 10))
def test_canonical_name_keeps_the_value_exactly(std):
    chain = parse(f"gaussian_noise:std={std!r}".replace("e+", "e"))
    assert chain.links[0].parameters["std"] == std
    assert parse(chain.name) == chain


def test_chains_travel_to_other_processes():
    chain = parse("blur5+noise0.1+snow2.5")
    assert chain.name == "blur5+gaussian_noise:std=0.1+snow2.5"  # a cached name travels along or is made again
    again = pickle.loads(pickle.dumps(chain))
    assert again == chain and hash(again) == hash(chain)
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(again(picture), chain(picture))


# -- how a transform is made -------------------------------------------------------------------------------------


def made(**change):
    def apply(picture, *, rng, **parameters):
        return picture

    given = {"name": "mist", "apply": apply, "parameters": {"level": Parameter(0, 1)}, "level": "level"}
    return Transform(**{**given, "severities": (0.1, 0.2, 0.3, 0.4, 0.5), "summary": "Mist.", **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"severities": (0.1, 0.2)}, "5 severities"),
        ({"severities": ()}, "5 severities"),
        ({"severities": (0.1, 0.2, 0.3, 0.4, 5)}, "mist: level must lie in 0 … 1, not 5"),
        ({"severities": (0.1, 0.2, 0.3, 0.4, "0.5")}, "level must be a number"),
        ({"severities": ({"level": 1, "depth": 2},) * 5}, "mist has no parameter 'depth'; it knows level"),
        ({"severities": ({},) * 5}, "doesn't set the level"),
        ({"name": "mist2"}, "lower-case"),
        ({"name": "Mist"}, "lower-case"),
        ({"name": ""}, "lower-case"),
        ({"level": "depth"}, "no parameter 'depth' that could be its level"),
        ({"parameters": {"severity": Parameter(0, 1)}}, "every transform's"),
        ({"sweep": Sweep(0, 2)}, "mist: the ends of a sweep must lie in 0 … 1, not 2"),
        ({"origin": {"level": -1}}, "level must lie in 0 … 1"),
        ({"origin": {"depth": 0}}, "no parameter 'depth'"),
    ],
)
def test_a_transform_is_checked_when_it_is_made(change, message):
    assert made().row(3) == {"level": 0.3}
    with pytest.raises(ValueError, match=message):
        made(**change)


def test_origins_fill_in_what_they_do_not_say():
    two = {"a": Parameter(0, 10, whole=True), "kind": Parameter(choices=("x", "y"))}
    rows = tuple({"a": 2 * n, "kind": "y"} for n in range(1, 6))
    transform = made(parameters=two, level=SEVERITY, severities=rows, origin={"a": 0})
    assert transform.row(0) == {"a": 0, "kind": "y"}
    assert transform.row(0.75) == {"a": 2, "kind": "y"}  # 1.5: to the nearest, halves to even


def test_names_that_are_taken(monkeypatch):
    monkeypatch.setattr(TRANSFORMS, "_entries", dict(TRANSFORMS._entries))
    aliases = dict(ALIASES)
    for name, others in (("blur", ()), ("gray", ()), ("mist", ("blur",)), ("mist", ("gray",))):
        with pytest.raises(ValueError, match=r"registered already|another name of grey"):
            register(made(name=name), others)
    assert "mist" not in TRANSFORMS and aliases == ALIASES
    register(made(), ("haze",))
    try:
        assert parse("haze0.5").name == "mist0.5"
    finally:
        del ALIASES["haze"]
