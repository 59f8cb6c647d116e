"""The daemon's JSON as types. docs/openapi.yaml has every member; what is not known is None.

Amounts that end in ``_mb`` are MiB, times are RFC 3339 in UTC, durations are seconds (``_s``) or milliseconds
(``_ms``).
A newer daemon may send more members than these.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict


class Blocker(TypedDict):
    """Who is in the way of a request, and why."""

    service: Optional[str]
    gpu: Optional[int]
    mb: int
    priority: Optional[int]
    why: str


class Process(TypedDict):
    """A process that holds GPU memory; `service` is None where it belongs to none."""

    pid: int
    name: str
    memory_mb: Optional[int]
    service: Optional[str]


class Vram(TypedDict):
    """The first GPU."""

    total_mb: Optional[int]
    used_mb: Optional[int]
    free_mb: Optional[int]
    available_mb: Optional[int]
    processes: List[Process]
    temperature_c: Optional[int]
    utilization_percent: Optional[int]


class Mig(TypedDict):
    """A part of a GPU in MIG mode."""

    uuid: Optional[str]
    name: Optional[str]
    total_mb: Optional[int]
    used_mb: Optional[int]


class Gpu(TypedDict):
    """One GPU and its account; `admissible_mb` is what a start may commit now."""

    index: int
    uuid: Optional[str]
    name: Optional[str]
    total_mb: Optional[int]
    used_mb: Optional[int]
    free_mb: Optional[int]
    available_mb: Optional[int]
    admissible_mb: Optional[int]
    committed_mb: int
    foreign_mb: int
    unreclaimed_mb: int
    reserve_mb: int
    temperature_c: Optional[int]
    utilization_percent: Optional[int]
    accounting: str
    sampled_at: Optional[str]
    processes: List[Process]
    stale: bool
    problem: Optional[str]
    driver_mb: Optional[int]
    mig: List[Mig]


class Service(TypedDict):
    """One service; `state` is unknown, stopped, starting, ready, busy, asleep, stopping or error."""

    state: str
    vram_mb: Optional[int]
    priority: int
    phases: List[int]
    gpus: List[int]
    pid: Optional[int]
    measured_mb: Optional[int]
    committed_mb: int
    peak_mb: Optional[int]
    boot_ms: Optional[int]
    since: Optional[str]
    error: Optional[str]
    live: bool
    transition: Optional[int]
    pinned: bool
    leases: int
    busy: Optional[bool]
    external_starts: int
    outdated: bool
    retired: bool


class SharedLock(TypedDict):
    """The lock that several hosts share; `state` is unknown, free, ours, foreign or unavailable."""

    key: str
    state: str
    holder: Optional[str]
    expires_in_s: Optional[float]
    waiting: int
    problem: Optional[str]


class Lock(TypedDict):
    """The lease that stands for the lock; `ttl` is seconds, -1 without a limit, -2 without a holder."""

    holder: Optional[str]
    ttl: int
    shared: Optional[SharedLock]


class Wanted(TypedDict):
    """Who waits for a lease, and when it will be broken for them (None: never)."""

    by: str
    since: Optional[str]
    breaks_in_s: Optional[float]


class LeaseInfo(TypedDict):
    """A lease as everybody may see it."""

    id: str
    fence: int
    mode: str
    services: List[str]
    phase: Optional[int]
    gpus: List[int]
    vram_mb: Optional[int]
    owner: str
    priority: int
    attached: bool
    state: str
    since: Optional[str]
    age_s: float
    ttl_s: Optional[float]
    expires_in_s: Optional[float]
    wanted: Optional[Wanted]


class Unlocked(TypedDict):
    """What was ended by force. `taken_from`: who had the lock that hosts share, and was robbed of it."""

    released: bool
    broken: List[LeaseInfo]
    taken_from: Optional[str]


class Reloaded(TypedDict):
    """What another reading of the configuration changed. `outdated`: services that go on as they run; `at_start`:
    options that count from the next start of gpumgrd on."""

    added: List[str]
    removed: List[str]
    changed: List[str]
    outdated: List[str]
    at_start: List[str]
    warnings: List[str]
    text: str


class Step(TypedDict):
    """One thing that was or would be done."""

    action: str
    service: str
    gpus: List[int]
    mb: int
    reason: str
    state: str
    duration_ms: Optional[int]
    error: Optional[str]
    text: str


class _TransitionBase(TypedDict):
    id: int
    kind: str
    target: Optional[str]
    phase: Optional[int]
    state: str
    outcome: Optional[str]
    priority: int
    place: Optional[int]
    waits_for: Optional[str]
    queued_at: Optional[str]
    started_at: Optional[str]
    ended_at: Optional[str]
    duration_ms: Optional[int]
    gpus: List[int]
    steps: List[Step]
    blocking: List[Blocker]
    detail: Optional[str]


class Transition(_TransitionBase, total=False):
    """A request: waiting, running or ended. `broken` only of a forced stop: the leases that it ended."""

    broken: List[LeaseInfo]


class KnownPhase(TypedDict):
    """A phase of the configuration."""

    number: int
    name: Optional[str]
    services: List[str]


class Phase(TypedDict):
    """The phase that was prepared last."""

    number: int
    name: Optional[str]
    at: Optional[str]
    satisfied: bool


class Status(TypedDict):
    """Everything the daemon knows. `vram` is the first GPU, `gpus` are all of them."""

    vram: Vram
    gpus: List[Gpu]
    gpu_problem: Optional[str]
    services: Dict[str, Service]
    lock: Lock
    leases: List[LeaseInfo]
    phases: List[KnownPhase]
    phase: Optional[Phase]
    queue: List[Transition]
    transitions: List[Transition]


class _Done(TypedDict):
    success: bool
    transition: int
    steps: List[Step]
    duration_ms: int


class PhaseDone(_Done):
    """A phase is ready."""

    phase: int
    name: Optional[str]


class _ServiceDoneBase(_Done):
    service: str


class ServiceDone(_ServiceDoneBase, total=False):
    """A service was started, stopped or restarted. `broken` only of a forced stop: the leases that it ended."""

    broken: List[LeaseInfo]


class ReleaseDone(_Done):
    """What was not in use was stopped."""

    stopped: List[str]


class _PlanBase(TypedDict):
    success: bool
    feasible: bool
    steps: List[Step]
    blocking: List[Blocker]
    text: str


class Plan(_PlanBase, total=False):
    """What a request would do; `text` explains it. `phase` or `service` is what was asked about."""

    phase: int
    service: str


class Event(TypedDict):
    """Something that happened. `id` only grows, also over restarts; `data` has at least ``text``.

    A `type` of ``reset`` (id 0) says that events were missed: ask for the status.
    """

    id: int
    time: str
    type: str
    subject: Optional[str]
    data: Dict[str, Any]


class LeaseWarning(TypedDict):
    """What a holder is warned of. `reason`: ``wanted`` (`by`, `breaks_in_s`: seconds or None), ``service_failed``."""

    reason: str
    text: str
    by: Optional[str]
    breaks_in_s: Optional[float]
