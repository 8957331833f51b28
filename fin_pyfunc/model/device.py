"""Whether this machine has a GPU that can compute: one probe, made once, that imports no machine-learning library."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

#: What the CUDA runtime's error numbers mean to whoever runs the machine (driver_types.h).
_REASONS = {
    35: "no NVIDIA driver is installed, or it is older than the CUDA runtime needs",
    100: "the NVIDIA driver sees no GPU",
}


class Device(NamedTuple):
    """What the probe found.

    Parameters
    ----------
    name : str or None
        Such as "NVIDIA H100 80GB HBM3"; None where there is no GPU that can be used.
    refusal : str or None
        Why none can be used, as half a sentence for an error message.
    """

    name: str | None
    refusal: str | None


@cache
def probe() -> Device:
    """Ask the CUDA runtime for a GPU, once a process; never before a fork, which its state does not outlive.

    `import cuml` would be no such probe: it takes seconds, and succeeds on machines without a GPU.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        return Device(None, "no CUDA runtime for Python is installed (package cuda-bindings)")
    try:
        status, number = runtime.cudaGetDevice()
        if int(status):
            return Device(None, _REASONS.get(int(status), f"CUDA reports no usable device (error {int(status)})"))
        status, properties = runtime.cudaGetDeviceProperties(number)
    except Exception as e:  # the loader raises its own kinds where the driver's library is absent
        return Device(None, f"the CUDA driver did not load ({type(e).__name__})")
    named = "a GPU" if int(status) else properties.name
    return Device(named.decode(errors="replace") if isinstance(named, bytes) else str(named), None)


def gpu_refusal() -> str | None:
    """Why no GPU can be used, or None where one can.

    Returns
    -------
    str or None
        Half a sentence for an error message, such as "the NVIDIA driver sees no GPU".
    """
    return probe().refusal


def gpu_available() -> bool:
    """Whether a GPU can be used."""
    return gpu_refusal() is None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of cupy, rmm or CUDA says that the device's memory is full."""
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(word in said for word in ("outofmemory", "out_of_memory", "bad_alloc"))


def is_device_failure(error: BaseException) -> bool:
    """Whether an exception is the device's doing, and not that of the rows or of the estimator."""
    library = type(error).__module__.partition(".")[0]
    return (
        is_out_of_memory(error) or library in ("cupy", "cupy_backends", "cuda", "rmm") or "cuda" in str(error).lower()
    )
