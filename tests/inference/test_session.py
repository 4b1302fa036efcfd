"""onnxruntime: what was asked for runs, or one clear line says why not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from hw4fast.errors import UsageError, UserError
from hw4fast.inference import session as sessions
from hw4fast.inference.session import PROBE, PROVIDERS, explain_provider, open_session


@pytest.fixture(autouse=True)
def silence(capfd):
    """onnxruntime's C++ log must not reach the user."""
    yield
    assert capfd.readouterr() == ("", "")


def test_cpu(centroid_onnx):
    session = open_session(centroid_onnx)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.run(["logits"], {"input": np.zeros((3, 1, 28, 28), np.float32)})[0].shape == (3, 10)


def test_threads_are_set(centroid_onnx):
    options = open_session(centroid_onnx, threads=1).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.parametrize(("torch_is_there", "spin", "stops"), [(True, None, 1), (False, None, 0), (True, True, 0)])
def test_threads_rest_after_an_answer_where_torch_is(torch_is_there, spin, stops, centroid_onnx, monkeypatch):
    """torch's next call takes twice as long while they look for work."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if torch_is_there:
        monkeypatch.setitem(sys.modules, "torch", sys)
    options = open_session(centroid_onnx, spin=spin).get_session_options()
    try:
        said = options.get_session_config_entry("session.force_spinning_stop")
    except Exception:  # it was never set
        said = "0"
    assert said == str(stops)


@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "cpu"])
def test_a_provider_runs_or_is_refused_with_its_reason(provider, centroid_onnx):
    reason = explain_provider(provider)
    if reason is None:
        assert open_session(centroid_onnx, provider).get_providers()[0] == PROVIDERS[provider]
        return
    assert reason.strip() and "\n" not in reason
    with pytest.raises(UserError) as caught:
        open_session(centroid_onnx, provider)
    text = str(caught.value)
    assert provider in text and reason in text and "use provider 'cpu'" in text and "\n" not in text


def test_cpu_always_runs():
    assert explain_provider("cpu") is None


def test_a_build_without_the_provider(monkeypatch, centroid_onnx):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "built without it; install onnxruntime-gpu" in (explain_provider("cuda") or "")
    with pytest.raises(UserError, match=r"provider 'cuda' doesn't run here: .* built without it"):
        open_session(centroid_onnx, "cuda")


def test_the_loaders_own_words_and_a_remedy(monkeypatch, tmp_path):
    """A provider's library that lacks the driver, as on a machine without a GPU."""
    import ctypes

    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / sessions.LIBRARY.format("cuda")).touch()

    def fail(path, **_):
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    reason = sessions._missing_library("cuda")
    assert reason == "libcuda.so.1: cannot open shared object file; install NVIDIA's driver"


def test_a_cuda_error_without_where_it_happened():
    """Neither the machine's name nor onnxruntime's source files are anybody's business."""
    text = "CUDA failure 2: out of memory ; GPU=0 ; hostname=vm ; file=/src/x.cc ; line=355 ; expr=cudaMalloc(&p, n);"
    assert sessions.said(RuntimeError(text)) == "CUDA failure 2: out of memory"


def test_a_gpu_without_cudnn(monkeypatch):
    """onnxruntime 1.31 loads cuDNN at the first convolution; a Relu runs without it."""
    import ctypes
    from types import SimpleNamespace

    def load(name, **_):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    runs = SimpleNamespace(get_providers=lambda: [PROVIDERS["cuda"]])
    monkeypatch.setattr(sessions, "_create", lambda *_: runs)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(sessions._onnxruntime(), "cuda_version", "13.0", raising=False)
    monkeypatch.setattr(sessions._onnxruntime(), "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(sessions, "_preload", lambda: None)
    assert (explain_provider("cuda") or "").endswith("No such file or directory; pip install nvidia-cudnn-cu13")
    monkeypatch.setattr(ctypes, "CDLL", lambda name, **_: None)
    assert explain_provider("cuda") is None


@pytest.mark.parametrize("options", [None, {"use_tf32": "1", "prefer_nhwc": "1"}])
def test_float32_on_a_gpu_is_float32_unless_told(options, monkeypatch, centroid_onnx):
    import onnxruntime

    asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model, given, providers, **rest):
            asked.append(providers)
            super().__init__(model, given, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return [PROVIDERS["cuda"]]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(sessions, "_preload", lambda: None)
    open_session(centroid_onnx, "cuda", options=options)
    (providers,) = asked
    ours = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert providers == [(PROVIDERS["cuda"], ours | (options or {})), (PROVIDERS["cpu"], {})]


def test_a_provider_that_loads_but_skips_this_model_is_refused(monkeypatch, centroid_onnx):
    """The session came back with the CPU although the provider itself is fine."""
    create = sessions._create
    monkeypatch.setattr(sessions, "_create", lambda model, provider, *rest: create(model, "cpu", *rest))
    monkeypatch.setattr(sessions, "explain_provider", lambda name: None)
    with pytest.raises(UserError, match="provider 'cuda' loads here, but not for"):
        open_session(centroid_onnx, "cuda")


@pytest.mark.parametrize("ask", [lambda path: open_session(path, "gpu"), lambda path: explain_provider("gpu")])
def test_unknown_provider(ask, centroid_onnx):
    with pytest.raises(UsageError, match="unknown provider 'gpu'; known: cpu, cuda, tensorrt"):
        ask(centroid_onnx)


def test_a_gpus_options_are_not_for_the_cpu(centroid_onnx):
    for providers in ("cpu", ["cpu"]):
        with pytest.raises(UsageError, match="the option enable_cuda_graph is a GPU provider's"):
            open_session(centroid_onnx, providers, options={"enable_cuda_graph": "1"})
    assert open_session(centroid_onnx, ["cuda", "cpu"], options={"use_tf32": "1"}).get_providers()


@pytest.mark.parametrize("threads", [0, -1])
def test_bad_threads(threads, centroid_onnx):
    with pytest.raises(UsageError, match="threads must lie in 1 … "):
        open_session(centroid_onnx, threads=threads)


def test_probe_is_the_model_that_its_comment_names():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(PROBE)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Relu"]
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


def break_it(whole: bytes, how: str) -> bytes:
    return {
        "text": b"this is no model, it is text",
        "first half": whole[: len(whole) // 2],
        "zeros": bytes(1000),
        "unknown operator": whole.replace(b"Flatten", b"Flattem"),
    }[how]


@pytest.mark.parametrize("how", ["text", "first half", "zeros", "unknown operator"])
def test_corrupt_model(how, centroid_onnx, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(break_it(centroid_onnx.read_bytes(), how))
    with pytest.raises(UserError) as caught:
        open_session(path)
    text = str(caught.value)
    assert "broken.onnx' can't be loaded as an ONNX model: " in text and "export or fetch it again" in text
    assert "\n" not in text and "ONNXRuntimeError" not in text


def test_what_onnxruntime_warns_about_is_not_the_users(centroid_onnx, tmp_path):
    """An initializer that nothing reads; in a process of its own, since the level is set once per process."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(centroid_onnx)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "unused"))
    onnx.save(model, tmp_path / "unused.onnx")

    def stderr(code: str) -> str:
        command = [sys.executable, "-c", code, tmp_path / "unused.onnx"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr

    bare = "import sys, onnxruntime as o; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    assert "unused" in stderr(bare)  # so there is something to silence
    assert stderr("import sys; from hw4fast.inference.session import open_session; open_session(sys.argv[1])") == ""


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.onnx").touch()
    for path, message in (
        (tmp_path / "none.onnx", "there is no model file"),
        (tmp_path / "empty.onnx", "is empty"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            open_session(path)


@pytest.mark.parametrize("quantised", [True, False])
def test_weights_that_are_only_stored_in_int8_are_unpacked_once(quantised, tmp_path):
    """Else they would be for each picture, and convolutions would do without onnxruntime's own layout."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.Generator(np.random.PCG64(0))
    stored = {
        "stored": rng.integers(-128, 128, (8, 3, 3, 3), np.int8),
        "scale": np.float32(0.01),
        "zero": np.int8(0),
    }
    nodes = [helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["weight"])]
    taken = "x"
    if quantised:
        nodes.append(helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]))
        nodes.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["again"]))
        taken = "again"
    nodes.append(helper.make_node("Conv", [taken, "weight"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "stored",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8, 6, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    sessions._create(str(tmp_path / "net.onnx"), "cpu", sessions._Options(), save=tmp_path / "optimised.onnx")
    left = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph.node}
    assert ("DequantizeLinear" in left or "QLinearConv" in left) == quantised
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    ours = open_session(tmp_path / "net.onnx").run(None, {"x": x})[0]
    import onnxruntime

    plain = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    theirs = plain.run(None, {"x": x})[0]
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_a_file_of_a_newer_onnx_says_what_to_do(centroid_onnx, tmp_path):
    model = onnx.load(centroid_onnx)
    model.ir_version = 99
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(
        UserError, match=r"IR version: 99.*; save it with ir_version=\d+, or install a newer onnxruntime"
    ):
        open_session(tmp_path / "new.onnx")
