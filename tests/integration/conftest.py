"""Fixtures of the integration tests: daemons that leave nothing behind, and sharding over several processes."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import gpumgr_testlib as lib  # noqa: E402  (after the path is set)
import interrupts  # noqa: E402
from docker_engine import Containers, DockerEngine  # noqa: E402
from engine_proxy import EngineProxy  # noqa: E402
from redis_server import Probe, RedisServer  # noqa: E402


def pytest_configure(config):
    interrupts.pytest_configure(config)
    config.addinivalue_line("markers", "newcomer: builds, installs or takes long; run once, with the plain build")


def pytest_collection_modifyitems(config, items):
    """GPUMGR_TEST_SHARD=I and GPUMGR_TEST_SHARDS=N take every Nth test."""
    shards = int(os.environ.get("GPUMGR_TEST_SHARDS", "1"))
    shard = int(os.environ.get("GPUMGR_TEST_SHARD", "0"))
    if shards < 2:
        return
    kept = [item for index, item in enumerate(items) if index % shards == shard]
    dropped = [item for index, item in enumerate(items) if index % shards != shard]
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    setattr(item, f"report_{call.when}", outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """No test may hang: after a minute it fails where it stands."""

    def give_up(number, frame):
        pytest.fail("the test took too long")  # no OSError, as a TimeoutError is, which a test may be waiting for

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(int(60 * lib.SLOWNESS) if "newcomer" not in item.keywords else 600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def make_daemon(request):
    """Makes daemons: make_daemon(services=..., phases=..., start=True, ...). Each is ended and checked after the test."""
    daemons = []

    def make(services=None, phases=None, start=True, **keys):
        daemon = lib.Daemon(services, phases, **keys)
        daemons.append(daemon)
        if start:
            daemon.start()
        return daemon

    yield make

    report = getattr(request.node, "report_call", None)
    failed = report is None or report.failed
    complaints = []
    for daemon in reversed(daemons):
        log = daemon.log()
        config = daemon.config_path.read_text() if daemon.config_path.exists() else ""
        try:
            found = daemon.close()
        except Exception as error:  # the other daemons must be ended too
            found = [f"while closing: {error!r}"]
        if failed or found:
            print(f"--- configuration\n{config}\n--- gpumgrd\n{log}")
        complaints += found
    assert not complaints, "; ".join(complaints)


@pytest.fixture
def pipeline(make_daemon):
    """A daemon with the services and phases of a video pipeline."""
    return make_daemon(lib.pipeline_services(), lib.PIPELINE_PHASES)


# --- containers ------------------------------------------------------------------------------------------------------


def needs_root():
    if os.getuid() != 0:
        pytest.skip("starts a container engine, and that needs root")


def ended(engine):
    complaints = engine.close()
    assert not complaints, "; ".join(complaints)


@pytest.fixture(scope="session")
def shared_engine():
    """One Docker Engine for all tests of this process that leave it as it is."""
    needs_root()
    engine = DockerEngine()
    try:
        yield engine.start()
    finally:
        ended(engine)


@pytest.fixture
def make_engine(request):
    """Makes engines that a test may kill, hang or restart: make_engine(live_restore=True, start=True, ...)."""
    needs_root()
    engines = []

    def make(live_restore=True, start=True, **keys):
        engine = DockerEngine(live_restore, **keys)
        engines.append(engine)
        return engine.start() if start else engine

    yield make
    report = getattr(request.node, "report_call", None)
    for engine in engines:
        if report is None or report.failed:
            print(f"--- dockerd\n{engine.log()[-5000:]}")
        ended(engine)


@pytest.fixture
def containers(shared_engine):
    """The containers of this test, on the shared engine."""
    containers = Containers(shared_engine)
    yield containers
    complaints = containers.clear()
    assert not complaints, "; ".join(complaints)


@pytest.fixture
def make_proxy(shared_engine):
    """Makes proxies in front of an engine: make_proxy(rule=..., engine=...)."""
    proxies = []

    def make(rule=None, engine=None):
        proxies.append(EngineProxy(engine or shared_engine, rule))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def launch(containers, make_proxy, make_daemon):
    """Starts a daemon that shares its simulated card with this test's containers: launch(services, phases, ...).

    Daemons end before the proxies and the containers do, and with them the services that they started.
    """

    def launch(services, phases=None, **keys):
        return make_daemon(services, phases, sim_dir=keys.pop("sim_dir", containers.sim_dir), **keys)

    return launch


# --- the lock across hosts -------------------------------------------------------------------------------------------


@pytest.fixture
def make_redis(request):
    """Makes Redis servers that a test may hang, kill and restart: make_redis("--option", "value", start=True, ...)."""
    servers = []

    def make(*options, start=True, **keys):
        servers.append(RedisServer(*options, **keys))
        return servers[-1].start() if start else servers[-1]

    yield make
    report = getattr(request.node, "report_call", None)
    for server in reversed(servers):
        if report is None or report.failed:
            print(f"--- {' '.join(server.command())}\n{server.log()[-3000:]}")
        server.close()


@pytest.fixture(scope="session")
def shared_redis():
    """One Redis for all tests of this process that leave it running."""
    server = RedisServer(unix=True)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def redis(shared_redis):
    """It, empty."""
    shared_redis("FLUSHALL")
    return shared_redis


@pytest.fixture
def make_probe(request):
    """Makes daemons as far as the lock is concerned: make_probe(url=..., ttl_ms=..., ...); on `redis`, which they know
    already, when there is no url."""
    probes = []

    def make(url=None, **keys):
        if url is None:
            keys.setdefault("knows", request.getfixturevalue("redis"))
            url = keys["knows"].url
        probes.append(Probe(url, **keys))
        return probes[-1]

    yield make
    report = getattr(request.node, "report_call", None)
    complaints = []
    for probe in reversed(probes):
        if report is None or report.failed:
            print(f"--- lock-probe {probe.folder}", *probe.lines, probe.log(), sep="\n")
        complaints += probe.close()
    assert not complaints, "; ".join(complaints)
