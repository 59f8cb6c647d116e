"""The GPU manager, answered by gpumgrd: the old names, handed on from gpumgr.compat, and nothing else."""

from gpumgr.compat import (
    DEFAULT_SERVICES,
    GPUManagerV2,
    GPUProcess,
    LifecycleManager,
    ServiceConfig,
    ServiceState,
    ServiceType,
    VRAMStatus,
    VRAMTracker,
    get_gpu_manager_v2,
    get_lifecycle_manager,
    get_service_config,
    get_services_for_phase,
    get_vram_tracker,
)

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
