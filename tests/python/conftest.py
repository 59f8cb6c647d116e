"""Fixtures of the tests of the Python client: those of the integration tests, and clients and workers of their own."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

import gpumgr_testlib as lib  # noqa: E402  (after the path is set)
import python_testlib  # noqa: E402

sys.path.insert(0, str(python_testlib.PYTHON))

# What the integration tests have is had from there, not said again.
_spec = importlib.util.spec_from_file_location("integration_conftest", HERE.parent / "integration" / "conftest.py")
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
pytest_configure = _shared.pytest_configure
pytest_collection_modifyitems = _shared.pytest_collection_modifyitems
pytest_runtest_makereport = _shared.pytest_runtest_makereport
pytest_runtest_call = _shared.pytest_runtest_call
make_daemon = _shared.make_daemon
pipeline = _shared.pipeline


@pytest.fixture
def as_root():
    if os.getuid() != 0:
        pytest.skip("makes a network namespace, or becomes somebody else, and that needs root")


@pytest.fixture(autouse=True)
def no_other_daemon(monkeypatch):
    """A daemon that the caller's environment names is not for us."""
    for name in list(os.environ):
        if name.startswith("GPUMGR_") and not name.startswith(("GPUMGR_TEST_", "GPUMGR_BUILD_")):
            monkeypatch.delenv(name)


@pytest.fixture
def make_client():
    """Makes clients of a daemon, closed after the test."""
    from gpumgr import Client

    made = []

    def make(daemon, **keys):
        made.append(Client(str(daemon.socket), timeout=10 * lib.SLOWNESS, **keys))
        return made[-1]

    yield make
    for client in made:
        for hold in client._calls.holds.all():
            hold.abandon()
        client._calls.core.close()


@pytest.fixture
def studio(make_daemon):
    """A daemon with two services, of which one runs."""
    services = {"paint": lib.sim_service(4000, 50), "film": lib.sim_service(20000, 90)}
    daemon = make_daemon(services, {7: {"name": "show", "services": ["paint"]}})
    daemon.start_service("paint").ok()
    return daemon


@pytest.fixture
def workers():
    workers = python_testlib.Workers()
    yield workers
    workers.close()
