"""The service registry, answered by gpumgrd: the old names, handed on from gpumgr.compat, and nothing else."""

from gpumgr.compat import (
    DEFAULT_SERVICES,
    ServiceConfig,
    ServiceState,
    ServiceType,
    get_service_config,
    get_services_for_phase,
)

__all__ = [
    "DEFAULT_SERVICES",
    "ServiceConfig",
    "ServiceState",
    "ServiceType",
    "get_service_config",
    "get_services_for_phase",
]
