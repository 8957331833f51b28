"""Whether this machine has a GPU that can compute: one probe, made once, that imports no machine-learning library."""

from __future__ import annotations

from functools import cache


@cache
def gpu_refusal() -> str | None:
    """Why no GPU can be used, or None where one can.

    Returns
    -------
    str or None
        Half a sentence for an error message, such as "no CUDA runtime is installed". `import cuml` is no such
        probe: it succeeds on machines without a GPU.
    """
    try:
        from cuda.bindings import runtime
    except ImportError:
        return "no CUDA runtime for Python is installed (package cuda-bindings)"
    try:
        status, _ = runtime.cudaGetDevice()
    except Exception as e:  # the loader raises its own kinds where the driver's library is absent
        return f"the CUDA driver did not load ({type(e).__name__})"
    return None if int(status) == 0 else f"CUDA reports no usable device (error {int(status)})"


def gpu_available() -> bool:
    """Whether a GPU can be used."""
    return gpu_refusal() is None
