"""A worker's connections to one model's host, through all of the host's restarts."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import msgspec
from msgspec.msgpack import Decoder

from fin_pyfunc.host.children import OUT_OF_MEMORY
from fin_pyfunc.host.fork_client import ForkClient, ForkServerError
from fin_pyfunc.host.messages import Connect, Ended, Kill, Open, Reason, Started, receive, send
from fin_pyfunc.host.opening import Described, Failure, Opening
from fin_pyfunc.host.wire import MAX_TEXT, Channel, MalformedError, Received, read_described
from fin_pyfunc.model.errors import ArtifactError, BackendError, FinPyfuncError, ModelUnavailableError

logger = logging.getLogger("fin_pyfunc.server")
T = TypeVar("T")

#: Connections that are kept open while nobody uses them.
MAX_FREE = 8
#: Longest wait before the fork server is asked again where it cannot be started, in seconds.
MAX_WAIT_SECONDS = 30.0
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_events: Decoder[Started | Ended] = Decoder(Started | Ended)


class Limits(NamedTuple):
    """What a host may take.

    Parameters
    ----------
    memory_bytes : int
    open_seconds : float
        How long opening the model may take.
    call_seconds : float
        How long one answer may take.
    """

    memory_bytes: int
    open_seconds: float
    call_seconds: float


class Outage(NamedTuple):
    """A model that does not answer now.

    Parameters
    ----------
    reason : str
        One sentence.
    is_out : bool
        Whether it was taken out because its process ended too often, or is just being started again.
    retry_at : float
        When its process is started again, in the seconds of ``time.monotonic``.
    """

    reason: str
    is_out: bool
    retry_at: float


class HostConnection:
    """One lease of a host, and a pool of channels to it. Safe for threads.

    Parameters
    ----------
    client : ForkClient
    opening : Opening
    name : str
        The model, for the log.
    limits : Limits
    on_end : callable
        Called with the reason for each time that the host ended, in one of the workers that use it.
    """

    def __init__(
        self, client: ForkClient, opening: Opening, name: str, limits: Limits, on_end: Callable[[Reason], None]
    ) -> None:
        self._client, self.opening, self._name = client, opening, name
        self.limits, self._on_end = limits, on_end
        self.described: Described | None = None
        #: why it could not be opened
        self._refusal: Exception | None = None
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._lease: socket.socket | None = None
        self._generation = 0
        self._free: list[Channel] = []
        self._used: set[Channel] = set()
        self.outage: Outage | None = None
        #: process id of the host that runs now, or ran last
        self.pid = 0
        self._is_closed = False

    def open(self) -> Described:
        """Have the model opened, and wait for it.

        Raises
        ------
        ArtifactError, BackendError, ModelUnavailableError
        """
        threading.Thread(target=self._follow_to_the_end, name="host", daemon=True).start()
        self._settled.wait()
        if self._refusal is not None:
            self.close()
            raise self._refusal
        assert self.described is not None  # noqa: S101 - for the type checker
        return self.described

    def ask(self, question: Callable[[Channel], None], read: Callable[[Received], T], max_bytes: int) -> T:
        """Ask the host something.

        Parameters
        ----------
        question : callable
            Sends it.
        read : callable
            Makes something of the answer; raises MalformedError for one that no host of ours gives.
        max_bytes : int
            Longest answer.

        Raises
        ------
        ModelUnavailableError
            The host has ended, or did not answer in time and was ended.
        """
        deadline = time.monotonic() + self.limits.call_seconds
        channel, generation = self._channel(deadline)
        is_free = False
        try:
            channel.limit(deadline)
            question(channel)
            if (received := channel.receive(max_bytes, deadline)) is None:
                raise ConnectionResetError
            answer = read(received)
            is_free = True
        except TimeoutError:
            self._kill(generation, "hung")
            raise self._unavailable("did not answer in time and was ended") from None
        except (OSError, MalformedError) as e:
            if isinstance(e, MalformedError):
                logger.error("the process of %s sent what no model host sends (%s) and is ended", self._name, e)
            self._kill(generation, "crashed")
            raise self._unavailable("ended while it was asked") from None
        finally:
            self._give_back(channel, generation, is_free)
        return answer

    def close(self) -> None:
        """Let go of the host; takes no lock, so that it may be called from anywhere."""
        self._is_closed = True
        if (lease := self._lease) is not None:
            with suppress(OSError):
                lease.shutdown(socket.SHUT_RDWR)

    # on the thread that follows the host

    def _follow_to_the_end(self) -> None:
        try:
            self._follow()
        except Exception as e:  # a defect of ours: nobody must wait for ever
            logger.exception("following the process of %s failed in a way that was not foreseen", self._name)
            self._settle(e)
            self._go_out("is not followed any more", True, float("inf"))

    def _follow(self) -> None:
        """Hear what becomes of the host, and connect to each new one."""
        wait = 0.0
        while not self._is_closed:
            try:
                lease = self._lease = self._take_lease()
            except ForkServerError as e:
                self._settle(ModelUnavailableError(f"The model's process cannot be started: {e}."))
                wait = min(MAX_WAIT_SECONDS, 2 * wait + 1)
                self._go_out("cannot be started", False, wait)
                logger.error("the process of %s cannot be started: %s", self._name, e)
                time.sleep(wait)
                continue
            with lease:
                while not self._is_closed and (event := _heard(lease)) is not None:
                    if isinstance(event, Started):
                        if self._begin(event):
                            wait = 0.0
                    elif not self._end(event):
                        return
            self._lease = None
            if not self._is_closed:
                # of the fork server: whoever needs it first starts another
                logger.error("the fork server has ended; the process of %s is started again", self._name)
                self._on_end("crashed")
                self._go_out("has ended", False, 0.0)
                time.sleep(wait)
                wait = min(MAX_WAIT_SECONDS, wait + 1)
        self._go_out("is not used any more", False, 0.0)

    def _take_lease(self) -> socket.socket:
        lease = self._client.connect()
        opening = os.memfd_create("opening", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(opening, msgspec.json.encode(self.opening))
            fcntl.fcntl(opening, fcntl.F_ADD_SEALS, _SEALS)  # the model must not choose what is opened after it
            wanted = Open(key=self.opening.key, memory_bytes=self.limits.memory_bytes, python=self.opening.python)
            send(lease, wanted, [opening])
        except OSError as e:
            lease.close()
            raise ForkServerError("the fork server ended as it was asked") from e
        finally:
            os.close(opening)
        return lease

    def _begin(self, started: Started) -> bool:
        """Connect to a host that was started, and wait until it has opened the model."""
        began, is_first = time.monotonic(), self.described is None
        with self._lock:
            self._generation, self.pid = started.generation, started.pid
        deadline = began + self.limits.open_seconds
        try:
            channel, described = self._connected(started.generation, deadline)
        except TimeoutError:
            self._kill(started.generation, "hung")
            said = f"Opening the model took longer than the {self.limits.open_seconds:g} s it may take"
            self._settle(ModelUnavailableError(f"{said}: try another, or raise deployment.api.models.load_seconds."))
            return False
        except MalformedError:
            self._kill(started.generation, "crashed")
            self._settle(ArtifactError("The model's process does not keep to the protocol of model hosts."))
            return False
        except OSError:
            return False  # what has become of it is heard next
        if isinstance(described, Failure):
            channel.close()
            self._settle(_refusal(described))
            return False
        if self.described not in (None, described):
            channel.close()
            self._kill(started.generation, "crashed")
            return False
        with self._lock:
            self.described, self.outage = described, None
            self._free.append(channel)
        if not is_first:
            taken = time.monotonic() - began
            logger.info("the process of %s is back after %.2f s, with pid %d", self._name, taken, started.pid)
        self._settle(None)
        return True

    def _end(self, end: Ended) -> bool:
        """The host has ended; whether it is started again."""
        cause = _cause(end)
        if end.retry_seconds is None:
            self._settle(ArtifactError(f"Opening the model ended its process ({cause}): {_ADVICE[end.reason]}."))
            self._go_out("ended while it opened the model", True, float("inf"))
            return False
        if end.is_counted:
            self._on_end(end.reason)
            what = "taken out; its process is" if end.is_out else "without its process, which is"
            logger.error("%s is %s started again in %g s: it %s", self._name, what, end.retry_seconds, cause)
        self._go_out(f"has ended ({cause})", end.is_out, end.retry_seconds)
        self._settle(ModelUnavailableError("The model's process has ended and is started again: try again later."))
        return True

    def _settle(self, refusal: Exception | None) -> None:
        """How opening it went, the first time."""
        if not self._settled.is_set():
            self._refusal = refusal
            self._settled.set()

    def _go_out(self, what: str, is_out: bool, wait: float) -> None:
        """There is no host for now; whoever waits for its answer is told."""
        with self._lock:
            self._generation = 0
            self.outage = Outage(f"The model's process {what}", is_out, time.monotonic() + wait)
            free, self._free, used = self._free, [], set(self._used)
        for channel in free:
            channel.close()
        for channel in used:  # something that it has started may keep the other end open
            channel.break_off()

    # on any thread

    def _channel(self, deadline: float) -> tuple[Channel, int]:
        """A channel that nobody else uses."""
        with self._lock:
            generation, described = self._generation, self.described
            if self.outage is not None or not generation:
                raise self._unavailable("is started again")
            if self._free:
                channel = self._free.pop()
                self._used.add(channel)
                return channel, generation
        try:
            channel, said = self._connected(generation, deadline)
        except (OSError, MalformedError) as e:
            self._kill(generation, "hung" if isinstance(e, TimeoutError) else "crashed")
            raise self._unavailable("does not answer") from None
        if said != described:
            channel.close()
            self._kill(generation, "crashed")
            raise self._unavailable("is started again")
        with self._lock:
            self._used.add(channel)
        return channel, generation

    def _connected(self, generation: int, deadline: float) -> tuple[Channel, Described | Failure]:
        lease = self._lease
        if lease is None:
            raise ConnectionResetError
        ours, its = socket.socketpair()
        with its:
            send(lease, Connect(generation=generation), [its.fileno()])
        channel = Channel(ours)
        try:
            if (received := channel.receive(MAX_TEXT, deadline)) is None:
                raise ConnectionResetError
            return channel, read_described(received)
        except BaseException:
            channel.close()
            raise

    def _give_back(self, channel: Channel, generation: int, is_free: bool) -> None:
        with self._lock:
            self._used.discard(channel)
            if is_free and generation == self._generation and len(self._free) < MAX_FREE:
                self._free.append(channel)
                return
        channel.close()

    def _kill(self, generation: int, reason: Reason) -> None:
        if (lease := self._lease) is not None:
            with suppress(OSError):
                send(lease, Kill(generation=generation, reason=reason))

    def _unavailable(self, what: str) -> ModelUnavailableError:
        outage = self.outage
        if outage is None:
            return ModelUnavailableError(f"The model's process {what}: try again in a moment.")
        wait = max(0.0, outage.retry_at - time.monotonic())
        if not outage.is_out:
            return ModelUnavailableError(f"{outage.reason} and is started again: try again in a moment.", wait)
        return ModelUnavailableError(
            f"{outage.reason} too often and is left alone for {wait:.0f} s: ask for another version.", wait
        )


_ADVICE: dict[Reason, str] = {
    "crashed": "its files are damaged, or it needs other versions of its libraries than are installed here",
    "hung": "it took longer than deployment.api.models.load_seconds",
    "memory": "it needs more memory than deployment.api.models.host_memory_bytes",
}


def _heard(lease: socket.socket) -> Started | Ended | None:
    try:
        received = receive(lease, _events)
    except OSError:
        return None
    return None if received is None else received[0]


def _refusal(failure: Failure) -> FinPyfuncError:
    if failure.kind == "backend":
        return BackendError(failure.said)
    return ArtifactError(failure.said if failure.kind == "artifact" else f"The model cannot be opened: {failure.said}.")


def _cause(end: Ended) -> str:
    if end.reason == "hung":
        return "did not answer in time"
    if end.reason == "memory" or end.code == OUT_OF_MEMORY:
        return "ran out of memory"
    if end.code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-end.code).name}"
    return f"ended with exit code {end.code}"
