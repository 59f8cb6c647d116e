"""What can be asked of the daemon, once for both clients."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Union, cast

from . import records
from ._address import Address
from ._core import Core, Progress, escape, phase_name, query, seconds, waiting
from ._lease import Holds
from ._steps import Steps
from ._streams import EventSource
from .errors import ServiceError, UnknownNameError

_TAIL_MAX = 100000
_LOOK_S = 2.0


class Calls:
    """Checks arguments and makes the steps; the clients run them."""

    def __init__(self, address: Address, owner: Optional[str], patience: float) -> None:
        limit = seconds(patience, "patience")
        self.core = Core(address, owner, 60.0 if limit is None else limit)
        self.holds = Holds()

    # --- what is

    def status(self) -> Steps[records.Status]:
        return self.core.ask("GET", "/gpu/status")

    def version(self) -> Steps[Dict[str, Any]]:
        return self.core.ask("GET", "/gpu/version")

    def health(self) -> Steps[Dict[str, Any]]:
        return self.core.ask("GET", "/health")

    def plan(self, phase: Union[int, str, None], start: Optional[str]) -> Steps[records.Plan]:
        if (phase is None) == (start is None):
            raise ValueError('a plan is for a phase or for a start: plan(4), plan(start="comfyui")')
        if phase is not None:
            return self.core.ask("GET", "/gpu/plan" + query(phase=phase_name(phase)))
        escape(cast(str, start))
        return self.core.ask("GET", "/gpu/plan" + query(start=start))

    def transition(self, number: int) -> Steps[records.Transition]:
        return self.core.ask("GET", f"/gpu/transitions/{int(number)}")

    def leases(self) -> Steps[List[records.LeaseInfo]]:
        answer = yield from self.core.ask("GET", "/gpu/leases")
        return cast(List[records.LeaseInfo], answer["leases"])

    def logs(self, service: str, tail: int) -> Steps[str]:
        return self.core.logs(service, check_tail(tail))

    # --- what is to be

    def phase(
        self, phase: Union[int, str], wait: Optional[float], on_event: Optional[Progress]
    ) -> Steps[records.PhaseDone]:
        return self.core.act(f"/gpu/prepare-phase/{escape(phase_name(phase))}", waiting(wait), on_event)

    def start(self, service: str, wait: Optional[float], on_event: Optional[Progress]) -> Steps[records.ServiceDone]:
        return self.core.act(f"/gpu/service/{escape(service)}/start", waiting(wait), on_event)

    def stop(
        self, service: str, force: bool, wait: Optional[float], on_event: Optional[Progress]
    ) -> Steps[records.ServiceDone]:
        body = {**waiting(wait), **({"force": True} if force else {})}
        return self.core.act(f"/gpu/service/{escape(service)}/stop", body, on_event)

    def restart(self, service: str, wait: Optional[float], on_event: Optional[Progress]) -> Steps[records.ServiceDone]:
        path = f"/gpu/service/{escape(service)}/restart"
        return self.core.act(path, waiting(wait), on_event, is_repeatable=False)

    def release_all(self, wait: Optional[float], on_event: Optional[Progress]) -> Steps[records.ReleaseDone]:
        return self.core.act("/gpu/release-all", waiting(wait), on_event)

    def unlock(self) -> Steps[records.Unlocked]:
        return self.core.ask("POST", "/gpu/lock/release")

    def reload(self) -> Steps[records.Reloaded]:
        return self.core.ask("POST", "/gpu/reload")

    def release(self, lease_id: str, fence: Optional[int]) -> Steps[None]:
        yield from self.core.ask("DELETE", f"/gpu/leases/{escape(lease_id)}" + query(fence=fence))

    def wait_ready(self, service: str) -> Steps[None]:
        """Until it is ready or busy. Looks whenever something happened, and every 2 s all the same."""
        source = EventSource(self.core, None, True)
        try:
            yield from source.open()
            while True:
                status = yield from self.status()
                if _is_ready(status, service):
                    return
                yield from source.wait(_LOOK_S)
        finally:
            source.close()


def check_tail(tail: int) -> int:
    if isinstance(tail, bool) or not isinstance(tail, int):
        raise TypeError(f"tail is a number of lines, not {type(tail).__name__}")
    if not 0 <= tail <= _TAIL_MAX:
        raise ValueError(f"tail is a number of lines from 0 to {_TAIL_MAX}, not {tail}")
    return tail


def _is_ready(status: records.Status, name: str) -> bool:
    service = status["services"].get(name)
    if service is None:
        raise UnknownNameError(f'there is no service "{name}"', code="unknown_service")
    if service["state"] in ("ready", "busy"):
        return True
    is_expected = service["transition"] is not None or any(
        one["kind"] in ("phase", "lease") or one["target"] == name for one in status["queue"]
    )
    if service["state"] == "error" and not is_expected:
        words = f"{name} failed, and nothing is about to start it: {service['error']}"
        raise ServiceError(words, code="service_failed")
    return False
