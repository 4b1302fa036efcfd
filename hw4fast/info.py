"""`info`: what this machine can run, found by trying it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hw4fast import kernels, record
from hw4fast.errors import UserError
from hw4fast.files import cache_folder, data_folder
from hw4fast.inference.session import PROVIDERS, explain_provider


@dataclass(frozen=True)
class Info:
    """processor, cores; isas: best first; variants: {kernel: what a call runs on} or a reason in `kernels_error`;
    gpus: those that the CUDA kernels find; cuda: what these are built for, or why they can't run and what to do;
    versions: of packages; providers: {name: None when it really loads, else why not}; folders: {name: state}."""

    processor: str
    cores: int
    isas: list[str]
    variants: dict[str, str]
    kernels_error: str | None
    gpus: list[str]
    cuda: str
    versions: dict[str, str]
    providers: dict[str, str | None]
    folders: dict[str, str]


def info() -> Info:
    """Everything that `hw4fast info` prints. Never raises for a missing part: it says what is missing. No torch."""
    isas: list[str] = []
    variants: dict[str, str] = {}
    kernels_error = None
    try:
        isas = kernels.isas()
        kernels.threads_from_environment()
        variants = dict.fromkeys(kernels.calls(), f"cpp-{kernels.chosen_isa()}")
    except (UserError, ValueError) as error:
        kernels_error = str(error)
    gpus, cuda = _cuda()
    return Info(
        processor=record.processor(),
        cores=record.cores(),
        isas=isas,
        variants=variants,
        kernels_error=kernels_error,
        gpus=gpus,
        cuda=cuda,
        versions=record.versions(),
        providers={name: explain_provider(name) for name in PROVIDERS},
        folders={"HW4FAST_DATA": _contents(data_folder()), "cache": _contents(cache_folder())},
    )


def _cuda() -> tuple[list[str], str]:
    reason = kernels.cuda_error()
    try:
        module = kernels.compiled_cuda()
    except UserError:
        return [], str(reason)
    driver, built_with = (kernels.cuda_version(number) for number in module.versions())
    built = f"built with CUDA {built_with} for compute capability {module.architectures.replace(' ', ', ')}"
    if reason is not None:
        return [], f"{built}; {reason}"
    gpus = [
        f"{gpu['name']}, compute capability {gpu['capability'] / 10}, {gpu['memory'] / 2**30:.0f} GiB,"
        f" {gpu['multiprocessors']} multiprocessors"
        for gpu in module.devices()
    ]
    return gpus, f"runs; {built}; the driver knows CUDA {driver}"


def _contents(folder: Path | None) -> str:
    if folder is None:
        return "not set"
    if not folder.is_dir():
        return f"{folder} (does not exist)"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    models = sorted(path.stem for path in (folder / "models").glob("*.onnx"))
    text = f"{folder}: {', '.join(names) or 'empty'}"
    return f"{text}; models: {', '.join(models)}" if models else text
