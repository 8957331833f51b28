"""A CUDA runtime that always finds one device."""

from __future__ import annotations

from types import SimpleNamespace


def cudaGetDevice() -> tuple[int, int]:  # noqa: N802 - its name there
    return 0, 0


def cudaGetDeviceProperties(number: int) -> tuple[int, SimpleNamespace]:  # noqa: N802 - its name there
    return 0, SimpleNamespace(name=b"Stand-in 1")
