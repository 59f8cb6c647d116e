"""The names of an older GPU manager (pynvml, Docker and a lock in Redis), answered by gpumgrd.

``from gpumgr.compat import get_gpu_manager_v2`` in the place of ``from lib.gpu_manager_v2 import get_gpu_manager_v2``,
or ``python -m gpumgr.compat install DIR``, which puts files of the old names into the place of the old ones. What
behaves otherwise, and why, stands in docs/migrating.md.
"""

from __future__ import annotations

from .lifecycle import LifecycleManager, get_lifecycle_manager
from .manager import GPUManagerV2, get_gpu_manager_v2
from .registry import (
    DEFAULT_SERVICES,
    ServiceConfig,
    ServiceState,
    ServiceType,
    get_service_config,
    get_services_for_phase,
)
from .vram import GPUProcess, VRAMStatus, VRAMTracker, get_vram_tracker

__all__ = [
    "DEFAULT_SERVICES",
    "GPUManagerV2",
    "GPUProcess",
    "LifecycleManager",
    "ServiceConfig",
    "ServiceState",
    "ServiceType",
    "VRAMStatus",
    "VRAMTracker",
    "get_gpu_manager_v2",
    "get_lifecycle_manager",
    "get_service_config",
    "get_services_for_phase",
    "get_vram_tracker",
]
