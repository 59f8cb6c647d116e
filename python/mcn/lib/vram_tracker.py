"""The VRAM tracker, answered by gpumgrd: the old names, handed on from gpumgr.compat, and nothing else."""

from gpumgr.compat import (
    GPUProcess,
    VRAMStatus,
    VRAMTracker,
    get_vram_tracker,
)

__all__ = [
    "GPUProcess",
    "VRAMStatus",
    "VRAMTracker",
    "get_vram_tracker",
]
