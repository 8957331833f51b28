"""What cuML computes of an estimator on a GPU: rebuilt there, and held to what the estimator answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.exactness import Reference
from fin_pyfunc.compiling.timing import seconds
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.backends.cuml import rebuilt, scores
from fin_pyfunc.model.errors import ArtifactError, DeviceError
from fin_pyfunc.model.form import Form


def cuml_form(parts: Mapping[str, str], file: str, reference: Reference, tolerance: float) -> Form:
    """Rebuild the estimator as a server with a GPU would, and compare.

    Parameters
    ----------
    parts : mapping of str to str
        scikit-learn class to cuML class.
    file : str
        The estimator's own.
    reference : Reference
        What the scikit-learn estimator answers.
    tolerance : float
        How far a score may be off.

    Raises
    ------
    NotCompilable
        cuML does not take it, or is not good enough.
    """
    if not parts:
        raise NotCompilable("cuML cannot make it of its scikit-learn form again")
    try:
        on_gpu = rebuilt(reference.native, parts)
    except (ArtifactError, DeviceError) as e:
        raise NotCompilable(str(e)) from e

    def run(matrix: Array) -> Array:
        return scores(on_gpu, matrix, reference.output)

    # float32 on the device knows no extremes: rows that it makes NaN of are asked of the estimator
    n = reference.n_plain
    plain = replace(reference, rows=reference.rows[:n], index=reference.index[:n], scores=reference.scores[:n])
    error, band = plain.judge(run, None, exact=False, tolerance=tolerance)
    taken = seconds(run, plain.rows)
    return Form(
        backend="cuml", file=file, output=reference.output, error=error, band=band, seconds=taken, parts=dict(parts)
    )
