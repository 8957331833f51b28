"""Which backend computes how many rows on this machine: measured, not guessed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fin_pyfunc.model.backends import Backend, asks_for
from fin_pyfunc.model.backends.native import LazyNative
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.device import gpu_refusal, probe
from fin_pyfunc.model.errors import BackendError, DeviceError, FinPyfuncError
from fin_pyfunc.model.features import Table
from fin_pyfunc.model.plan import MANY_ROW_COUNTS, ROW_COUNTS, Plan, Times, measure

logger = logging.getLogger("fin_pyfunc")

#: What `backend=` takes besides a backend's own name.
DEVICES = ("auto", "cpu", "gpu")
#: Seconds that measuring all backends may take.
BUDGET = 0.3
#: The same where one of them is on a GPU: what it takes for few rows says nothing of what it takes for many.
GPU_BUDGET = 1.5
#: Bytes of the rows that are measured then.
SAMPLE_BYTES = 64 << 20
#: Loading an estimator, scikit-learn's imports included, costs about this many seconds. It is loaded beside a compiled
#: form once that has cost as much: whatever comes, no more than twice the least time is spent (the ski-rental rule).
LOAD_SECONDS = 3.0
#: A hop to another thread and back costs about 0.1 ms and a turn of the interpreter's lock: what takes less than a few
#: of those is done at once.
NOW_SECONDS = 0.0004
#: Seconds between two lines of the log about a device that goes on failing.
SILENCE = 60.0


class Dispatch:
    """Sends a table to the backend that is to compute it.

    Parameters
    ----------
    backends : sequence of Backend
        Those this machine can run for this model, the one to prefer first.
    wanted : str, default "auto"
        "auto", "cpu", "gpu", or a backend's name.
    logged : mapping of str to mapping of int to float, optional
        By backend, seconds by rows as measured when the model was logged: the only word on an estimator that is not
        loaded yet.

    Raises
    ------
    BackendError
        What was asked for cannot be had; it is never quietly replaced.

    Attributes
    ----------
    fallbacks : int
        How often a device failed so that the model went on without it: 0, or 1 until it is loaded anew.
    on_fallback : callable or None
        Called then, on the thread that scored, with the type of the error that the device's library raised; must not
        raise.
    """

    def __init__(
        self, backends: Sequence[Backend], wanted: str = "auto", logged: Mapping[str, Times] | None = None
    ) -> None:
        self.wanted = wanted
        if wanted == "gpu" and (refusal := gpu_refusal()):
            raise BackendError(f"backend 'gpu' was asked for, but {refusal}; use backend='auto' or 'cpu'.")
        fitting = [b for b in backends if asks_for(wanted, b.name, b.device)]
        if not fitting and wanted == "gpu":
            raise BackendError(
                "backend 'gpu' was asked for, but this model has no form that a GPU computes; use backend='auto' or "
                "'cpu'."
            )
        if not fitting:
            names = ", ".join(repr(name) for name in (*DEVICES, *(b.name for b in backends)))
            raise BackendError(f"backend {wanted!r} is not available for this model; expected one of {names}.")
        self.backends = tuple(fitting)
        self.fallbacks = 0
        self.on_fallback: Callable[[str], None] | None = None
        #: None until `measure`: the first backend then computes everything
        self.plan: Plan | None = None
        #: how many rows `score_now` takes
        self._now_rows = 0
        self._logged = logged or {}
        self._by_name = {backend.name: backend for backend in fitting}
        self._rows: Table | None = None
        self._lost, self._loading = 0.0, threading.Lock()
        self._falling_back, self._said = threading.Lock(), float("-inf")
        if len(fitting) == 1 and isinstance(fitting[0], LazyNative):
            fitting[0].load()  # nothing can stand in for it: what is wrong with it is to be said now

    def choose(self, n_rows: int) -> Backend:
        """The backend for this many rows."""
        plan = self.plan
        # one that has failed meanwhile is not there any more
        return (None if plan is None else self._by_name.get(plan.best(n_rows))) or self.backends[0]

    @property
    def described(self) -> str:
        """Its backends, each with its device, such as "onnx (cpu), native (cpu)"."""
        return ", ".join(f"{backend.name} ({backend.device})" for backend in self.backends)

    def pin(self, n_rows: int = 1) -> None:
        """Leave everything to one backend from now on, for answers that are the same bytes however the rows are
        parted and however noisy the machine was when the others were timed.

        Parameters
        ----------
        n_rows : int, default 1
            Where the plan has a GPU for so many rows it is that one; else the first.
        """
        if (chosen := self.choose(n_rows)).device == "gpu":
            self.backends = (chosen, *(b for b in self.backends if b is not chosen))
        self.plan, self._now_rows = None, 0

    def score(self, table: Table) -> tuple[Scores, str]:
        """Scores of a table, and the name of the backend that computed them.

        Raises
        ------
        DeviceError
            The GPU failed, and nothing else may stand in for it.
        """
        backend = self.choose(len(table))
        if isinstance(backend, LazyNative) and not backend.is_loaded:
            backend = self._instead_of(backend, len(table))
        try:
            return backend.score(table), backend.name
        except DeviceError as e:
            self._go_on_without(backend, e)
        return self.score(table)

    def score_now(self, table: Table) -> tuple[Scores, str] | None:
        """As `score`, where that is expected to take no longer than `NOW_SECONDS`; None where it is not.

        For an event loop: never the estimator's own code, of which nobody knows that it is always as quick as when it
        was measured, and no row that no plan knows of.
        """
        if len(table) > self._now_rows:
            return None
        backend = self.choose(len(table))
        score_alone: Callable[[Table], Scores | None] | None = getattr(backend, "score_alone", None)
        if score_alone is None:  # an estimator, here or in a process of its own
            return None
        try:
            scores = score_alone(table)
        except DeviceError:
            return None  # `score` sees to it
        return None if scores is None else (scores, backend.name)

    def sample_rows(self, n_features: int) -> int:
        """How many rows `measure` has use for."""
        if not self._has_gpu():
            return ROW_COUNTS[-1]
        return max(ROW_COUNTS[-1], min(MANY_ROW_COUNTS[-1], SAMPLE_BYTES // (8 * max(1, n_features))))

    def measure(self, rows: Table, budget: float | None = None) -> Plan:
        """Time every loaded backend, which warms it up too, and plan by what was found.

        Parameters
        ----------
        rows : ndarray of shape (n_rows, n_features) or DataFrame
            Rows as clients may send them; at most `len(rows)` are scored at a time.
        budget : float, optional
            Seconds for all of it, but for what one call on one row takes; default 0.3, and 1.5 where a GPU is among
            them.

        Raises
        ------
        DeviceError
            The GPU failed, and nothing else may stand in for it.
        """
        self._rows = rows
        counts = MANY_ROW_COUNTS if self._has_gpu() else ROW_COUNTS
        budget = budget or (GPU_BUDGET if self._has_gpu() else BUDGET)
        sizes = [n for n in counts if n <= len(rows)] or [len(rows)]
        loaded = [b for b in self.backends if not isinstance(b, LazyNative) or b.is_loaded]
        times = {}
        for backend in loaded:
            try:
                times[backend.name] = measure(partial(_score, backend, rows), budget / len(loaded), sizes)
            except DeviceError as e:
                self._go_on_without(backend, e)
        times = {name: self._continued(name, of) for name, of in times.items()}
        for lazy in (b for b in self.backends if b not in loaded):
            if estimate := self._estimated(lazy.name, times):
                times[lazy.name] = estimate
        return self.adopt(times)

    def adopt(self, times: Mapping[str, Times]) -> Plan:
        """Plan by these times: by backend, seconds by rows."""
        plan = Plan(times)
        self.plan, self._now_rows = plan, plan.rows_within(NOW_SECONDS)
        return plan

    def _has_gpu(self) -> bool:
        return any(b.device == "gpu" for b in self.backends)

    def _go_on_without(self, failed: Backend, error: DeviceError) -> None:
        """Leave the device alone from now on, for what it was doing too; raises the error where nothing stands in."""
        with self._falling_back:
            others = tuple(b for b in self.backends if b.device != "gpu")
            is_first = failed in self.backends
            if not others:
                if time.monotonic() - self._said > SILENCE:
                    self._said = time.monotonic()
                    logger.warning("backend %s: %s; nothing else is allowed to stand in", failed.name, error)
                raise error
            if not is_first:  # another thread has seen to it
                return
            if self.plan is not None:
                names = {b.name for b in others}
                known = {name: times for name, times in self.plan.times.items() if name in names}
                if known:
                    self.adopt(known)
                else:
                    self.plan, self._now_rows = None, 0
            self.backends, self._by_name = others, {b.name: b for b in others}
            self.fallbacks += 1
        probe.cache_clear()  # whether the device is there at all is to be asked again
        # its words alone: whoever keeps the record would keep the error, and with it what is on the device
        logger.warning("backend %s: %s; the model goes on with %s", failed.name, str(error), others[0].name)
        if self.on_fallback is not None:
            self.on_fallback(type(error.__cause__ or error).__name__)

    def _continued(self, name: str, measured: Times) -> dict[int, float]:
        """What was measured here, and for more rows what it took when it was logged, at the pace of this machine."""
        known = {n: seconds for n, seconds in self._logged.get(name, {}).items() if seconds > 0}
        common = [n for n in measured if n in known]
        if not common:
            return dict(measured)
        pace = measured[max(common)] / known[max(common)]
        return {**measured, **{n: pace * seconds for n, seconds in known.items() if n > max(measured)}}

    def _estimated(self, name: str, times: Mapping[str, Times]) -> dict[int, float]:
        """A backend's times here, from how it compared with another when the model was logged."""
        logged = self._logged.get(name, {})
        for other, here in times.items():
            there = self._logged.get(other, {})
            common = [n for n in logged if there.get(n) and here]
            if common:
                of_other = Plan({other: here})
                return {n: logged[n] / there[n] * of_other.seconds(other, n) for n in common}
        return {}

    def _instead_of(self, lazy: LazyNative, n_rows: int) -> Backend:
        """The best loaded backend; what is lost by it counts until loading the estimator pays."""
        loaded = [b for b in self.backends if b is not lazy]
        plan = self.plan
        if not loaded or plan is None:
            return lazy
        stand_in = min(loaded, key=lambda b: plan.seconds(b.name, n_rows))
        self._lost += plan.seconds(stand_in.name, n_rows) - plan.seconds(lazy.name, n_rows)
        if self._lost > LOAD_SECONDS and self._loading.acquire(blocking=False):
            threading.Thread(target=self._load, args=(lazy,), name="load-estimator", daemon=True).start()
        return stand_in

    def _load(self, lazy: LazyNative) -> None:
        try:
            lazy.load()
            if self._rows is not None:
                self.measure(self._rows)
        except FinPyfuncError as e:
            logger.warning("the estimator of a compiled model could not be loaded beside it: %s", e)
        else:
            logger.info("the estimator is loaded beside its compiled form, which is slower for many rows")


def _score(backend: Backend, rows: Table, n_rows: int) -> Scores:
    return backend.score(rows[:n_rows])
