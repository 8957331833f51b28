"""An ONNX Runtime session as this project wants one: one thread, and no more memory than it needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import tempfile
from pathlib import Path
from typing import Any

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.onnx import check_onnx

#: From this many bytes on a graph is worth the second load that makes its session small.
COMPACT_BYTES = 1 << 20


def open_session(content: bytes) -> Any:
    """Open a session on the content of an ``.onnx`` file.

    Returns
    -------
    onnxruntime.InferenceSession
        On the CPU, with one thread: the server has threads of its own, and one row has no work to share out.

    Raises
    ------
    ArtifactError
        ONNX Runtime cannot read it, or must not.
    """
    import onnxruntime

    check_onnx(content)

    try:
        if len(content) < COMPACT_BYTES:
            return onnxruntime.InferenceSession(content, _options(), providers=["CPUExecutionProvider"])
        session = _compact(content)
    except Exception as e:  # its exceptions share no base of their own
        raise ArtifactError(f"The ONNX file could not be read ({type(e).__name__}): export the model again.") from e
    _give_back_memory()
    return session


def _compact(content: bytes) -> Any:
    """A session that does not hold every attribute of its graph a second time (8 MB instead of 44 MB for a forest of
    230,000 nodes): one that was written in ONNX Runtime's own format and read again.
    """
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix="fin_pyfunc-") as folder:
        file = str(Path(folder, "model.ort"))
        options = _options()
        options.optimized_model_filepath = file
        options.add_session_config_entry("session.save_model_format", "ORT")
        # how a graph is sped up depends on this processor, which is the one that runs it
        onnxruntime.InferenceSession(content, options, providers=providers)
        gc.collect()
        return onnxruntime.InferenceSession(file, _options(), providers=providers)
    # nowhere to write to
    return onnxruntime.InferenceSession(content, _options(), providers=providers)


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _give_back_memory() -> None:
    """Give the system back what reading a graph took for a moment; glibc keeps it otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
