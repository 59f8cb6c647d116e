"""What a lease is asked for with: the caller's arguments into the daemon's JSON.

Checks what only the client can see; the rest is the daemon's to judge.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Optional, Union

from ._core import seconds

MODES = ("exclusive", "shared", "gpu")
_OWNER_MAX = 200
_HOLDING_MAX = 256


def make_terms(
    services: Iterable[str],
    *,
    phase: Union[int, str, None],
    vram: Union[int, str, None],
    mode: str,
    wait: Optional[float],
    owner: Optional[str],
    priority: Optional[int],
) -> Dict[str, Any]:
    names = list(services)
    if (len(names) > 0) + (phase is not None) + (vram is not None) != 1:
        raise ValueError(
            'a lease is on services, on a phase, or on room: use("comfyui"), use(phase=4), use(vram="6GiB")'
        )
    terms: Dict[str, Any] = {"attach": True}
    if names:
        terms.update(_services(names))
    elif phase is not None:
        terms["phase"] = _number_or_text("phase", phase)
    else:
        terms["vram"] = _number_or_text("vram", vram)
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    terms["mode"] = mode
    limit = seconds(wait, "wait")
    if limit is not None:
        terms["wait_s"] = limit
    if owner is not None:
        terms["owner"] = _owner(owner)
    if priority is not None:
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise TypeError(f"priority is an int, not {type(priority).__name__}")
        terms["priority"] = priority
    return terms


def _services(names: Iterable[Any]) -> Dict[str, Any]:
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"the name of a service is a str, not {type(name).__name__}")
        if not name:
            raise ValueError("the name of a service is empty")
    return {"service": listed[0]} if len(listed) == 1 else {"services": listed}


def _number_or_text(name: str, value: Any) -> Union[int, str]:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"{name} is an int or a str, not {type(value).__name__}")
    return value


def _owner(owner: Any) -> str:
    if not isinstance(owner, str):
        raise TypeError(f"owner is a str, not {type(owner).__name__}")
    if len(owner.encode("utf-8", "surrogatepass")) > _OWNER_MAX:
        raise ValueError(f"owner is longer than {_OWNER_MAX} bytes")
    return owner


def set_holding(terms: Dict[str, Any], ids: Iterable[str]) -> None:
    """Names the leases that the client has already, so that it is told instead of waiting for itself."""
    held = list(dict.fromkeys(ids))[-_HOLDING_MAX:]
    if held:
        terms["holding"] = held
