"""What can go wrong, as one small tree of exceptions.

::

    GpumgrError
        AddressError         the socket, URL or token that was given cannot be one (also a ValueError)
        NoDaemonError        nobody answers there (also a ConnectionError)
        PermissionDeniedError  the socket may not be opened (also a PermissionError)
        BrokenConnectionError  the connection broke off before the answer was whole (also a ConnectionError)
        BadAnswerError       what answered is not gpumgrd
        WaitTimeoutError     a time limit passed (also a TimeoutError)
        LeaseLostError       the lease is gone; raised by Lease.check()
        RefusedError         gpumgrd said no
            DoesNotFitError    there is no room; `blocking` says who is in the way
            UnknownNameError   no such service, phase, lease or transition (also a LookupError)
            DeadlockError      the client would wait for itself
            ServiceError       a service did not start or stop

Whatever gpumgrd refuses has its own words as the message, its stable `code`, and where it applies `blocking`.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

from .records import Blocker


class GpumgrError(Exception):
    """Base of all errors of this package.

    Attributes:
        code: stable name of what happened, such as ``insufficient_vram``; the daemon's where it is the daemon's.
        detail: the same in words, with what would help; the message of the exception.
        blocking: who is in the way, ``[{"service", "gpu", "mb" (MiB), "priority", "why"}]``; often empty.
        status: the HTTP status, None when there was no answer.
        problem: the daemon's whole problem document, empty when there was none.
    """

    code = "error"

    def __init__(
        self,
        detail: str,
        *,
        code: Optional[str] = None,
        status: Optional[int] = None,
        problem: Optional[Mapping[str, Any]] = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code
        self.status = status
        self.problem: Dict[str, Any] = dict(problem or {})

    @property
    def blocking(self) -> List[Blocker]:
        found = self.problem.get("blocking")
        return list(found) if isinstance(found, list) else []

    def __str__(self) -> str:
        return self.detail

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, detail={self.detail!r})"

    def __reduce__(self) -> Tuple[Any, ...]:
        return (_again, (type(self), self.detail, self.code, self.status, self.problem))


def _again(
    kind: Type[GpumgrError], detail: str, code: str, status: Optional[int], problem: Dict[str, Any]
) -> GpumgrError:
    return kind(detail, code=code, status=status, problem=problem)


class AddressError(GpumgrError, ValueError):
    """The socket, URL or token that was given, or stands in the environment, cannot be one."""

    code = "bad_address"


class NoDaemonError(GpumgrError, ConnectionError):
    """Nobody answers; the message says how to start gpumgrd."""

    code = "no_daemon"


class PermissionDeniedError(GpumgrError, PermissionError):
    """The socket may not be opened; the message says which group to join."""

    code = "permission_denied"


class BrokenConnectionError(GpumgrError, ConnectionError):
    """The connection ended before the answer was whole. What was asked for may or may not have happened."""

    code = "broken_connection"


class BadAnswerError(GpumgrError):
    """What came back is not an answer of gpumgrd's."""

    code = "bad_answer"


class WaitTimeoutError(GpumgrError, TimeoutError):
    """A limit passed: one of the caller's (code ``timed_out``), or ``wait`` in the daemon's queue
    (``wait_timeout``, ``lease_timeout``). What had not begun was withdrawn."""

    code = "timed_out"


class LeaseLostError(GpumgrError):
    """The lease is over; `code` is the reason: ``broken``, ``forced``, ``expired``, ``unreachable``, ..."""

    code = "lost"


class RefusedError(GpumgrError):
    """gpumgrd refused, or failed, for a reason of its own: see `code`."""

    code = "refused"


class DoesNotFitError(RefusedError):
    """There is no room, and nothing was stopped; `blocking` says who is in the way and why."""

    code = "insufficient_vram"


class UnknownNameError(RefusedError, LookupError):
    """There is no such service, phase, lease or transition."""

    code = "unknown"


class DeadlockError(RefusedError):
    """The request would wait for a lease that its own client holds, or close a circle of waits."""

    code = "would_deadlock"


class ServiceError(RefusedError):
    """A service did not start or stop; the message has its exit status and last lines."""

    code = "service_failed"


_BY_CODE: Dict[str, Type[GpumgrError]] = {
    "insufficient_vram": DoesNotFitError,
    "unknown_service": UnknownNameError,
    "unknown_phase": UnknownNameError,
    "unknown_lease": UnknownNameError,
    "unknown_transition": UnknownNameError,
    "would_deadlock": DeadlockError,
    "start_failed": ServiceError,
    "start_timeout": ServiceError,
    "stop_failed": ServiceError,
    "service_failed": ServiceError,
    "container_not_found": ServiceError,
    "wait_timeout": WaitTimeoutError,
    "lease_timeout": WaitTimeoutError,
}


def from_problem(status: int, problem: Any, target: str) -> GpumgrError:
    """The exception for an answer that is no success. `problem` is whatever JSON came with it, or None."""
    if not isinstance(problem, dict):
        return BadAnswerError(f"{target} answered with status {status}, not with JSON: is that gpumgrd?", status=status)
    code = problem.get("code")
    words = problem.get("detail") or problem.get("title") or f"gpumgrd answered with status {status}"
    kind: Type[GpumgrError] = _BY_CODE.get(code, RefusedError) if isinstance(code, str) else RefusedError
    return kind(str(words), code=code if isinstance(code, str) else None, status=status, problem=problem)
