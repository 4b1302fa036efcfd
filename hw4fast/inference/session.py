"""onnxruntime, without its two surprises: it never falls back silently here, and it never logs to stderr."""

from __future__ import annotations

import mmap
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from hw4fast.errors import UsageError, UserError
from hw4fast.files import cache_folder
from hw4fast.inference import optimised, shuffles
from hw4fast.inference.checked import insist_harmless
from hw4fast.kernels import check_threads, isas, ort_library
from hw4fast.paths import one_line, readable_file

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
HELPERS = {"cpu": (), "cuda": ("cpu",), "tensorrt": ("cuda", "cpu")}  # run the nodes that the provider can't
BATCH_AXES = "n", "N", "batch", "batch_size"
LIBRARY = "libonnxruntime_providers_{}.so"
CUDNN = "libcudnn.so.9"  # onnxruntime loads it when a convolution asks for it, and fails only then
FATAL = 4  # onnxruntime's log level above errors: those reach us as exceptions

NOISE = re.compile(  # in its messages
    r"\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?"
    r"|\S*[/\\]\S+\.(?:cc|h|hpp|cpp):\d+ .*?\)(?: const)?(?: \[with [^\]]*\])? "  # with the function's signature
    r"|\b\w+\.(?:cc|h|hpp|cpp):\d+ (?:\w+ )?(?:operator\(\) )?"  # with its name
    r"| ?; GPU=-?\d+ ?; hostname=.*"  # of a CUDA call that failed: where it stands
)

NEWER = re.compile(r"IR version: \d+, max supported IR version: (\d+)")

# A whole ONNX model: y = Relu(x), float32 [n], IR 8, opset 17. Made with onnx.helper, kept as bytes so that
# trying a provider needs no onnx; a test takes it apart.
PROBE = (
    b'\x08\x08:5\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x10\n\x01x\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01n'
    b"b\x10\n\x01y\x12\x0b\n\t\x08\x01\x12\x05\n\x03\x12\x01nB\x04\n\x00\x10\x11"
)


def open_session(
    path: str | Path,
    providers: str | Sequence[str] = "cpu",
    threads: int | None = None,
    kernels: bool = True,
    trusted: bool = False,
    spin: bool | None = None,
    batch: int | None = None,
    options: Mapping[str, str] | None = None,
) -> Any:
    """An onnxruntime.InferenceSession of the file that runs on the provider that was asked for, and on nothing less.

    providers: a key of PROVIDERS, or several, of which the first that loads is taken. threads: of one operator;
    onnxruntime's choice if None. kernels: on the CPU, run hw4fast's kernels where the file names them (`export
    --fused`), else what it says that they mean. trusted: the caller has made the file itself, so that it needn't be
    tried in a process of its own first (see checked.py). spin: whether its threads go on looking for work for a while
    after an answer, which makes the next one up to a tenth faster and everybody else slower; not if torch has been
    imported, whose next call would take twice as long, unless told. batch: how many pictures it will be given each
    time, where the file leaves that open under one of the names in BATCH_AXES: what follows from the number is then
    worked out once (shufflenet_v2_x1_0 computes its shapes with 77 operators and more). options: of the provider, by
    onnxruntime's names, over ours: on a GPU float32 is float32, unless {"use_tf32": "1"} allows products of 11 bits;
    {"enable_cuda_graph": "1"} replays a graph per batch size, for small batches, where all operators run on the GPU.
    Raises UsageError for an unknown provider, a bad number of threads or options for the CPU alone, UserError when none
    of the providers loads here (with the reasons and what to do) and when the file is missing, empty or no ONNX model.
    """
    names = [providers] if isinstance(providers, str) else list(providers)
    for name in names:
        _check_name(name)
    if not names:
        raise UsageError(f"no provider was named; known: {', '.join(PROVIDERS)}")
    if options and set(names) == {"cpu"}:
        raise UsageError(f"the option {min(options)} is a GPU provider's: onnxruntime's CPU provider takes none")
    if threads is not None:
        check_threads(threads)
    path = readable_file(path, "model")
    if not trusted:
        insist_harmless(path, _onnxruntime().__version__, ort_library() if kernels and "cpu" in names else None)
    spins = "torch" not in sys.modules if spin is None else spin
    wanted = _Options(threads, kernels, spins, batch, dict(options or {}))
    reasons = []
    for name in names:
        try:
            return _opened(path, name, wanted)
        except _NoProvider as error:
            reasons.append(str(error))
    raise UserError("; ".join(reasons) + ("" if "cpu" in names else "; or use provider 'cpu'"))


@dataclass(frozen=True)
class _Options:
    """As open_session has them."""

    threads: int | None = None
    kernels: bool = True
    spin: bool = True
    batch: int | None = None
    options: dict[str, str] = field(default_factory=dict)


class _NoProvider(Exception):
    """A provider doesn't run here, or not for this file."""


def _opened(path: Path, provider: str, options: _Options) -> Any:
    try:
        session = _create_or_recall(path, provider, options)
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        _insist(provider)
        reason, advice = said(error), "export or fetch it again"
        if newest := NEWER.search(reason):
            advice = f"save it with ir_version={newest[1]}, or install a newer onnxruntime"
        raise UserError(f"'{path}' can't be loaded as an ONNX model: {reason}; {advice}") from None
    if session.get_providers()[0] != PROVIDERS[provider]:
        _insist(provider)
        raise _NoProvider(f"provider '{provider}' loads here, but not for '{path}'")
    _insist_on_text(session, path)
    return session


def _insist_on_text(session: Any, path: Path) -> None:
    """protobuf lets any bytes pass as names and metadata; onnxruntime reads them as text only when it is asked."""
    try:
        for entry in (*session.get_inputs(), *session.get_outputs()):
            _ = entry.name, entry.shape
        _ = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError:
        raise UserError(f"'{path}' has names or metadata that are no text (UTF-8); export it again") from None


def _create_or_recall(path: Path, provider: str, options: _Options) -> Any:
    """On the CPU a session of the optimised graph in the cache, which is put there if it isn't yet."""
    belongs = _onnxruntime().__version__, provider, options.kernels, options.batch
    kept = optimised.entry(path, *belongs) if provider == "cpu" else None
    if kept is None:
        return _create(str(path), provider, options)
    if kept.whole():
        try:
            return _create(str(kept.graph), provider, options, level="DISABLE_ALL")
        except Exception:  # as above
            kept.forget()
    draft = kept.draft()
    if draft is None:
        return _create(str(path), provider, options)
    try:
        rewritten = draft / "rewritten.onnx"
        model = _quickened(path, rewritten, provider, options)
        session = _create(str(model), provider, options, save=draft / optimised.GRAPH)
        rewritten.unlink(missing_ok=True)
    except Exception:  # the graph can't be written, or the file itself is none
        optimised.discard(draft)
        return _create(str(path), provider, options)
    except BaseException:
        optimised.discard(draft)
        raise
    if _reopens(draft / optimised.GRAPH, session, provider, options):
        kept.settle(draft)
    else:
        optimised.discard(draft)
    return session


def _reopens(graph: Path, session: Any, provider: str, options: _Options) -> bool:
    """Whether a saved graph is the session's. Where a file's constants are inputs, too, onnxruntime folds them and then
    asks for them."""
    try:
        again = _create(str(graph), provider, options, level="DISABLE_ALL")
    except Exception:  # as above
        return False
    return not session.get_overridable_initializers() and _inputs(again) == _inputs(session)


def _inputs(session: Any) -> list[str]:
    return [entry.name for entry in session.get_inputs()]


def _quickened(path: Path, to: Path, provider: str, options: _Options) -> Path:
    """The same net in a graph that onnxruntime runs faster, or the file itself where we know none."""
    try:
        if not shuffles.has_shuffles(path):
            return path
        folded = _create(str(path), provider, options, level="ENABLE_BASIC", save=to)
        block = 16 if "avx512" in isas() else 8
        if not folded.get_overridable_initializers() and shuffles.quicken(to, block, _inputs(folded)):
            return to
    except Exception:  # of onnx, or a full disk: the file itself will do
        pass
    return path


def explain_provider(name: str) -> str | None:
    """None when a model really runs on that provider here, else why not and what to do; found by trying it.

    Raises UsageError for a name that isn't in PROVIDERS.
    """
    _check_name(name)
    runtime = _onnxruntime()
    if PROVIDERS[name] not in runtime.get_available_providers():
        return f"the installed onnxruntime {runtime.__version__} is built without it; install onnxruntime-gpu"
    try:
        if _create(PROBE, name, _Options(1, kernels=False)).get_providers()[0] == PROVIDERS[name]:
            return None if name == "cpu" else _missing_cudnn()
        failure = "onnxruntime doesn't say why"
    except Exception as error:
        failure = said(error)
    return _missing_library(name) or failure


def _check_name(provider: str) -> None:
    if provider not in PROVIDERS:
        raise UsageError(f"unknown provider '{provider}'; known: {', '.join(PROVIDERS)}")


def _insist(provider: str) -> None:
    reason = None if provider == "cpu" else explain_provider(provider)
    if reason:
        raise _NoProvider(f"provider '{provider}' doesn't run here: {reason}")


def _create(
    model: str | bytes,
    provider: str,
    wanted: _Options,
    level: str = "ENABLE_ALL",
    save: Path | None = None,
) -> Any:
    """level: how far the graph is optimised: DISABLE_ALL for one that was, ENABLE_BASIC to fold its constants. save:
    where it is written then, at ENABLE_ALL with its weights in a file beside it."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    if wanted.threads is not None:
        options.intra_op_num_threads = wanted.threads
        options.inter_op_num_threads = 1
    if wanted.batch is not None:
        for axis in BATCH_AXES:
            options.add_free_dimension_override_by_name(axis, wanted.batch)
    if not wanted.spin:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if level != "DISABLE_ALL" and isinstance(model, str) and _only_stored_in_int8(Path(model)):
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
    if save is not None:
        options.optimized_model_filepath = str(save)
    if save is not None and level == "ENABLE_ALL":
        config = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{config}file_name", optimised.WEIGHTS)
        options.add_session_config_entry(f"{config}min_size_in_bytes", "1024")
    if provider != "cpu":
        _preload()
    elif wanted.kernels:
        options.register_custom_ops_library(str(ort_library()))
    available = runtime.get_available_providers()
    names = [name for name in (provider, *HELPERS[provider]) if PROVIDERS[name] in available]
    providers = [(PROVIDERS[name], _provider_options(name)) for name in names]
    providers[0][1].update(wanted.options)
    # without enable_fallback=0 an error of the provider is printed and the CPU runs instead
    return runtime.InferenceSession(model, options, providers=providers, enable_fallback=0)


def _provider_options(provider: str) -> dict[str, str]:
    """TensorRT takes minutes to build an engine, which it can keep. TF32 moves logits as far as float16 does, and is
    onnxruntime's default; who wants speed exports float16 and sees it in the card. To try all of cuDNN's ways, the
    default, took squeezenet on an H100 four to six times as long at a batch's first call, and chose no better ones:
    256 pictures in float16 took 1.4 times as long. TF32 makes no difference to those."""
    if provider == "cuda":
        return {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    if provider != "tensorrt":
        return {}
    folder = str(cache_folder() / "tensorrt")
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


def _only_stored_in_int8(path: Path) -> bool:
    """Whether weights are dequantised and nothing is quantised: arithmetic in float32, whose weights onnxruntime would
    dequantise anew for each picture, and not lay out for its convolutions (shufflenet_v2_x1_0: a third faster)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DequantizeLinear") >= 0 and content.find(b"QuantizeLinear") < 0  # a capital Q


@cache
def _onnxruntime() -> Any:
    """Imported on first use: 0.1 s that `--help` needn't wait for."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(FATAL)  # sessions inherit it
    return onnxruntime


@cache
def _preload() -> None:
    """Loads the CUDA libraries that pip installed (nvidia-*), which the system's loader doesn't look for."""
    with redirect_stdout(StringIO()):  # it prints what is missing; `_missing_library` says it better
        _onnxruntime().preload_dlls(directory="")


def _missing_library(provider: str) -> str | None:
    """The loader's own words on why the provider's library can't be loaded, None when it can (Linux only)."""
    import ctypes

    folder = Path(_onnxruntime().__file__).parent / "capi"
    library = folder / LIBRARY.format(provider)
    if not library.exists():
        return None
    try:
        ctypes.CDLL(str(folder / LIBRARY.format("shared")), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return _with_fix(error)
    return None


def _missing_cudnn() -> str | None:
    """Why cuDNN can't be loaded, without which a net fails at its first convolution; None when it can (Linux only)."""
    import ctypes

    if sys.platform != "linux":
        return None
    _preload()
    try:
        ctypes.CDLL(CUDNN)
    except OSError as error:
        return _with_fix(error)
    return None


def _with_fix(error: OSError) -> str:
    """The loader's words, and what to do."""
    text = one_line(error)
    cuda = str(getattr(_onnxruntime(), "cuda_version", "")).split(".")[0]
    fixes = {
        "libcuda.so": "install NVIDIA's driver",
        "libnvinfer": "install TensorRT",
        "libcudnn": f"pip install nvidia-cudnn-cu{cuda}",
        "libcublas": f"pip install nvidia-cublas{'' if cuda.isdigit() and int(cuda) >= 13 else f'-cu{cuda}'}",
    }
    fix = next((fix for part, fix in fixes.items() if part in text), f"install CUDA {cuda}'s libraries")
    return f"{text}; {fix}"


def said(error: Exception) -> str:
    """onnxruntime's message without its own prefixes, source files and signatures."""
    return one_line(NOISE.sub("", one_line(error, 20_000)), 400).rstrip(".")
