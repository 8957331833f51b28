"""Which of a model's forms run on a GPU here, or by nvForest, which knows both devices; and why not, where not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import PathFinder
from typing import Literal, NamedTuple

from fin_pyfunc.model.backends import asks_for
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.device import gpu_refusal
from fin_pyfunc.model.errors import BackendError, DeviceError
from fin_pyfunc.model.form import Form

logger = logging.getLogger("fin_pyfunc")


class Kind(NamedTuple):
    """A backend that runs a form which another one may run as well.

    Parameters
    ----------
    name : str
        What `backend=` calls it.
    device : {"cpu", "gpu"}
    form : str
        The form's own backend, as the manifest names it.
    packages : tuple of str
        What must be installed.
    extra : str
        Of ours, which brings them.
    """

    name: str
    device: Literal["cpu", "gpu"]
    form: str
    packages: tuple[str, ...]
    extra: str

    def missing(self) -> str | None:
        """The first package that is not installed; nothing is imported, and it takes microseconds."""
        return next((name for name in self.packages if PathFinder.find_spec(name) is None), None)

    def refusal(self, dropped: str | None = None) -> str | None:
        """Why it cannot run here, as half a sentence; `dropped` is why there is no form, None where there is one."""
        if self.device == "gpu" and (refused := gpu_refusal()):
            return refused
        if missing := self.missing():
            return f"package {missing!r} is not installed here (pip install 'fin_pyfunc[{self.extra}]')"
        return dropped


#: The one to prefer between equals first.
KINDS = (
    Kind("nvforest-cpu", "cpu", "treelite", ("nvforest",), "gpu"),
    Kind("nvforest-gpu", "gpu", "treelite", ("nvforest", "cupy"), "gpu"),
    Kind("cuml", "gpu", "cuml", ("cuml", "cupy"), "cuml"),
)
#: What `backend=` takes to mean one of them.
NAMES = tuple(dict.fromkeys(name for kind in KINDS for name in (kind.name.partition("-")[0], kind.name)))


def open_on_devices(
    forms: Sequence[Form],
    dropped: Mapping[str, str],
    open_it: Callable[[Kind, Form], CompiledBackend],
    wanted: str,
) -> list[CompiledBackend]:
    """Open what is asked for and can be had.

    Parameters
    ----------
    forms : sequence of Form
    dropped : mapping of str to str
        By form, why there is none.
    open_it : callable
    wanted : str
        "auto", "cpu", "gpu" or a backend's name.

    Raises
    ------
    BackendError
        None of those that were asked for can be had, and why.
    """
    opened, refused = [], {}
    for kind in (kind for kind in KINDS if asks_for(wanted, kind.name, kind.device)):
        form = next((form for form in forms if form.backend == kind.form), None)
        if form is None and wanted == "auto":
            continue
        none = dropped.get(kind.form, "its forms do not run there")
        reason = kind.refusal() if form is not None else kind.refusal(f"this model has no form for it ({none})")
        if reason is None and form is not None:
            try:
                opened.append(open_it(kind, form))
            except (DeviceError, ImportError) as e:
                reason = str(e) if isinstance(e, DeviceError) else f"package {e.name!r} could not be imported"
                logger.warning("backend %s is not used: %s", kind.name, reason)
        if reason is not None:
            refused[kind.name, form is not None] = reason
    if not opened and refused and wanted not in ("auto", "cpu"):
        # what stands in the way of a form that is there tells more than what another one lacks
        said = next((reason for (_, has_form), reason in refused.items() if has_form), next(iter(refused.values())))
        raise BackendError(f"backend {wanted!r} was asked for, but {said}; use backend='auto' or 'cpu'.")
    return opened
