"""Fixtures of the integration tests: daemons that leave nothing behind, and sharding over several processes."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import gpumgr_testlib as lib  # noqa: E402  (after the path is set)


def interrupt(number, frame):
    raise KeyboardInterrupt


def pytest_configure(config):
    # Whoever stops the run early, by Ctrl-C or kill, gets the fixtures' ends as well. A shell starts its background
    # jobs with SIGINT ignored.
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    config.addinivalue_line("markers", "newcomer: builds or installs; run once, with the plain build")


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
        raise TimeoutError("the test took too long")

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
