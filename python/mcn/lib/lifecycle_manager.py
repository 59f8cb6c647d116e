"""The lifecycle manager, answered by gpumgrd: the old names, handed on from gpumgr.compat, and nothing else."""

from gpumgr.compat import (
    LifecycleManager,
    ServiceConfig,
    ServiceState,
    ServiceType,
    get_lifecycle_manager,
)

__all__ = [
    "LifecycleManager",
    "ServiceConfig",
    "ServiceState",
    "ServiceType",
    "get_lifecycle_manager",
]
