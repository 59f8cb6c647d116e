"""The four files that carry the old names: what each hands on, and its text."""

from __future__ import annotations

from typing import Dict, List, NamedTuple


class Shim(NamedTuple):
    what: str
    names: List[str]


_MANAGER = ["GPUManagerV2", "get_gpu_manager_v2"]
_VRAM = ["GPUProcess", "VRAMStatus", "VRAMTracker", "get_vram_tracker"]
_LIFECYCLE = ["LifecycleManager", "get_lifecycle_manager"]
_REGISTRY = [
    "DEFAULT_SERVICES",
    "ServiceConfig",
    "ServiceState",
    "ServiceType",
    "get_service_config",
    "get_services_for_phase",
]

SHIMS: Dict[str, Shim] = {
    "gpu_manager_v2.py": Shim("the GPU manager", [*_MANAGER, *_VRAM, *_LIFECYCLE, *_REGISTRY]),
    "vram_tracker.py": Shim("the VRAM tracker", _VRAM),
    "lifecycle_manager.py": Shim("the lifecycle manager", [*_LIFECYCLE, *_REGISTRY[1:4]]),
    "service_registry.py": Shim("the service registry", _REGISTRY),
}

_TEXT = '''"""{what}, answered by gpumgrd: the old names, handed on from gpumgr.compat, and nothing else."""

from {package}.compat import (
{imports}
)

__all__ = [
{listed}
]
'''


def text_of(file: str, package: str) -> str:
    """`package`: ``gpumgr`` where it is installed, ``.gpumgr`` where its folder lies beside the file."""
    shim = SHIMS[file]
    names = sorted(shim.names)
    return _TEXT.format(
        what=shim.what[0].upper() + shim.what[1:],
        package=package,
        imports="\n".join(f"    {name}," for name in names),
        listed="\n".join(f'    "{name}",' for name in names),
    )
