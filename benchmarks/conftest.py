"""Benchmarks are collected for `pytest --benchmark-only` alone; plain `pytest` times nothing."""

from pathlib import Path


def pytest_ignore_collect(collection_path: Path, config) -> bool | None:
    return None if config.getoption("--benchmark-only", default=False) else True
