"""How full the card is, as gpumgrd reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from ..records import Status
from . import _link, registry

_RESERVE_MB = 1024


@dataclass
class GPUProcess:
    """A process that holds GPU memory (MiB)."""

    pid: int
    name: str
    memory_mb: int


@dataclass
class VRAMStatus:
    """Memory of one GPU in MiB. What is not known is 0: then nothing seems to fit, and nobody acts on it."""

    total_mb: int
    used_mb: int
    free_mb: int
    processes: List[GPUProcess] = field(default_factory=list)
    temperature_c: Optional[int] = 0
    utilization_percent: Optional[int] = 0


def status_of(readings: Dict[str, Any]) -> VRAMStatus:
    return VRAMStatus(
        total_mb=_link.number(readings.get("total_mb")),
        used_mb=_link.number(readings.get("used_mb")),
        free_mb=_link.number(readings.get("free_mb")),
        processes=[
            GPUProcess(pid=one["pid"], name=one["name"], memory_mb=_link.number(one["memory_mb"]))
            for one in readings.get("processes", [])
        ],
        temperature_c=_link.number(readings.get("temperature_c")),
        utilization_percent=_link.number(readings.get("utilization_percent")),
    )


def is_known(status: VRAMStatus) -> bool:
    """Whether there was a reading at all: no card has nothing used and nothing free."""
    return status.used_mb > 0 or status.free_mb > 0


class VRAMTracker:
    """Readings of one GPU. Thread-safe."""

    def __init__(self, device_index: int = 0) -> None:
        self.device_index = device_index
        self.reserve_mb = _RESERVE_MB  # what gpumgrd keeps free, once it was asked

    def get_status(self) -> VRAMStatus:
        """The last reading; all 0 and a log line when there is none."""
        status = _link.status()
        registry.learn(status)
        return self.take(status)

    def take(self, status: Optional[Status]) -> VRAMStatus:
        """The reading in what somebody asked for anyway."""
        readings = _link.vram_of(status, self.device_index)
        if "reserve_mb" in readings:
            self.reserve_mb = readings["reserve_mb"]
        return status_of(readings)

    def can_fit(self, required_mb: int, safety_margin_mb: int = 1024) -> bool:
        """Whether so much is free now, and a margin besides (both in MiB)."""
        status = self.get_status()
        return is_known(status) and status.free_mb - safety_margin_mb >= required_mb

    def get_process_by_name(self, name_pattern: str) -> Optional[GPUProcess]:
        """The first process whose name contains that, in whatever case; None without one."""
        wanted = name_pattern.lower()
        return next((one for one in self.get_status().processes if wanted in one.name.lower()), None)

    def shutdown(self) -> None:
        """Nothing is to be done: gpumgrd reads the card."""

    def __repr__(self) -> str:
        return f"<VRAMTracker of GPU {self.device_index}>"


_tracker: Optional[VRAMTracker] = None


def get_vram_tracker(device_index: int = 0) -> VRAMTracker:
    """The tracker of this process."""
    global _tracker
    if _tracker is None:
        _tracker = VRAMTracker(device_index)
    return _tracker
