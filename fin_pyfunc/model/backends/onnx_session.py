"""An ONNX Runtime session as this project wants one."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.model.errors import ArtifactError


def open_session(content: bytes) -> Any:
    """Open a session on the content of an ``.onnx`` file.

    Returns
    -------
    onnxruntime.InferenceSession
        On the CPU, with one thread: the server has threads of its own, and one row has no work to share out.

    Raises
    ------
    ArtifactError
        ONNX Runtime cannot read it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # its exceptions share no base of their own
        raise ArtifactError(f"The ONNX file could not be read ({type(e).__name__}): export the model again.") from e
