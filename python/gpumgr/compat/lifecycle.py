"""Starting and stopping services: gpumgrd does it, with room made and seen first."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

from ..errors import GpumgrError
from . import _link, registry
from .registry import ServiceConfig, ServiceState

_HEALTHY = (ServiceState.READY, ServiceState.BUSY)


class LifecycleManager:
    """Failures are False and a log line.

    `services` names those that count here; what they need is said by gpumgrd's configuration.
    """

    def __init__(self, services: Optional[Mapping[str, ServiceConfig]] = None) -> None:
        self.services: Mapping[str, ServiceConfig] = services or registry.DEFAULT_SERVICES
        self._states: Dict[str, ServiceState] = {}

    async def _ask(self) -> Dict[str, ServiceState]:
        status = await _link.status_async()
        registry.learn(status)
        if status is None:
            self._states = {}
        else:
            services = status["services"].items()
            self._states = {name: registry.state_of(service) for name, service in services if self._counts(name)}
        return self._states

    def _counts(self, name: str) -> bool:
        """Whether it is one of those that were given; all are where none were."""
        return isinstance(self.services, registry.LiveServices) or name in self.services

    def _is_known(self, service_name: str, states: Dict[str, ServiceState]) -> bool:
        if service_name not in states:
            _link.log.error("unknown service: %s", service_name)
            return False
        return True

    async def check_health(self, service_name: str) -> bool:
        """Whether it answers its health check, as far as gpumgrd knows."""
        return (await self._ask()).get(service_name) in _HEALTHY

    async def wait_for_health(self, service_name: str, timeout: Optional[float] = None) -> bool:
        """Waits at most `timeout` seconds until it is healthy; starts nothing."""
        if not self._is_known(service_name, await self._ask()):
            return False
        if timeout is None:
            config = self.services.get(service_name)
            timeout = config.health_timeout if config is not None else 60
        try:
            await _link.async_client().wait_ready(service_name, timeout)
        except (GpumgrError, ValueError, TypeError) as error:
            _link.log.error("%s is not healthy: %s", service_name, error)
            return False
        return True

    async def ensure_service(self, service_name: str) -> bool:
        """Starts it unless it runs, and waits until it is healthy. Makes room for it by priority, or says who is in
        the way."""
        if not isinstance(service_name, str) or not self._counts(service_name):
            _link.log.error("unknown service: %s", service_name)
            return False
        done = await _link.attempt_async(f"{service_name} was not started", lambda it: it.start(service_name))
        return done is not None

    async def stop_service(self, service_name: str, force: bool = False, *, wait: Optional[float] = 31.0) -> bool:
        """Stops it; waits at most `wait` seconds for those who use it. `force` kills it under them."""
        if not isinstance(service_name, str) or not self._counts(service_name):
            _link.log.error("unknown service: %s", service_name)
            return False
        done = await _link.attempt_async(
            f"{service_name} was not stopped", lambda it: it.stop(service_name, force=force, wait=wait)
        )
        return done is not None

    def get_state(self, service_name: str) -> ServiceState:
        """What gpumgrd says of it now."""
        status = _link.status()
        registry.learn(status)
        if status is None or service_name not in status["services"] or not self._counts(service_name):
            return ServiceState.UNKNOWN
        return registry.state_of(status["services"][service_name])

    async def get_all_states(self) -> Dict[str, ServiceState]:
        """Of every service; empty when gpumgrd does not answer."""
        return dict(await self._ask())


_manager: Optional[LifecycleManager] = None


def get_lifecycle_manager() -> LifecycleManager:
    """The lifecycle manager of this process."""
    global _manager
    if _manager is None:
        _manager = LifecycleManager()
    return _manager
