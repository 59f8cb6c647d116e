"""Names, sizes and priorities of the services, as the daemon's configuration has them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Dict, ItemsView, Iterator, List, Mapping, Optional, ValuesView

from ..records import Service, Status
from . import _link

_FRESH_S = 1.0
_DEFAULT_TIMEOUT_S = 60


class ServiceType(Enum):
    """How a service is run. gpumgrd does not tell; it is its business."""

    DOCKER = "docker"
    NATIVE = "native"


class ServiceState(Enum):
    """What a service does. A service in use is READY here, as it always was."""

    UNKNOWN = "unknown"
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    ASLEEP = "asleep"
    STOPPING = "stopping"
    ERROR = "error"


@dataclass
class ServiceConfig:
    """One service. How it is started and how its health is asked for stands in gpumgrd's configuration, not here:
    those fields are empty in what comes from the daemon."""

    name: str
    type: Optional[ServiceType]
    vram_mb: int
    priority: int
    health_endpoint: str = ""
    health_timeout: int = _DEFAULT_TIMEOUT_S
    warm_time: int = 0
    pipeline_phases: List[int] = field(default_factory=list)
    container_name: Optional[str] = None
    start_cmd: Optional[str] = None
    stop_cmd: Optional[str] = None
    pid_file: Optional[str] = None
    evict_api: Optional[str] = None


def state_of(service: Service) -> ServiceState:
    state = "ready" if service["state"] == "busy" else service["state"]
    try:
        return ServiceState(state)
    except ValueError:
        return ServiceState.UNKNOWN


def configs_of(status: Status) -> Dict[str, ServiceConfig]:
    return {
        name: ServiceConfig(
            name=name,
            type=None,
            vram_mb=_link.number(service["vram_mb"]),
            priority=service["priority"],
            pipeline_phases=list(service["phases"]),
        )
        for name, service in status["services"].items()
    }


class LiveServices(Mapping[str, ServiceConfig]):
    """The services that gpumgrd has, asked for when they are looked at. Without an answer those it had last."""

    def __init__(self) -> None:
        self._known: Dict[str, ServiceConfig] = {}
        self._asked: Optional[float] = None

    def take(self, status: Optional[Status]) -> None:
        """News that somebody had anyway."""
        if status is not None:
            self._known = configs_of(status)
            self._asked = time.monotonic()

    def snapshot(self) -> Dict[str, ServiceConfig]:
        # Without a lock: several threads may ask at the same time, and each has an answer of its own.
        if self._asked is None or time.monotonic() - self._asked > _FRESH_S:
            self.take(_link.status())
            self._asked = time.monotonic()
        return self._known

    def __getitem__(self, name: str) -> ServiceConfig:
        return self.snapshot()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.snapshot())

    def __len__(self) -> int:
        return len(self.snapshot())

    def items(self) -> ItemsView[str, ServiceConfig]:
        return self.snapshot().items()

    def values(self) -> ValuesView[ServiceConfig]:
        return self.snapshot().values()

    def __repr__(self) -> str:
        return f"<services of gpumgrd: {', '.join(self._known) or 'not asked for yet'}>"


DEFAULT_SERVICES: Mapping[str, ServiceConfig] = LiveServices()


def learn(status: Optional[Status]) -> None:
    if isinstance(DEFAULT_SERVICES, LiveServices):
        DEFAULT_SERVICES.take(status)


def get_services_for_phase(phase: int) -> List[str]:
    """Names of the services that a phase needs; empty for one that needs none or does not exist."""
    return [name for name, config in DEFAULT_SERVICES.items() if phase in config.pipeline_phases]


def get_service_config(name: str) -> Optional[ServiceConfig]:
    """None: there is no such service."""
    return DEFAULT_SERVICES.get(name)
