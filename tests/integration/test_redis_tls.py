"""The lock over TLS: who the server is, is checked."""

import os
import shutil
import subprocess

import pytest

import gpumgr_testlib as lib
from redis_server import Probe, is_handed_over_at_once, ms

KEY = "gpu_mutex_v2"


def make_certificate(folder, name):
    """A certificate that is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", f"subjectAltName={name}", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def make_tls(make_redis, tmp_path):
    def make(name):
        make_certificate(tmp_path, name)
        port = lib.free_port()
        files = ["--tls-cert-file", tmp_path / "cert.pem", "--tls-key-file", tmp_path / "key.pem"]
        options = ["--tls-port", port, *files, "--tls-auth-clients", "no"]
        server = make_redis(*options)
        server.tls_port = port
        return server

    return make


def start(probe, authority):
    os.environ["SSL_CERT_FILE"] = str(authority)
    try:
        return probe.start()
    finally:
        del os.environ["SSL_CERT_FILE"]


@pytest.fixture
def made(request):
    probes = []
    yield probes
    complaints = [complaint for probe in probes for complaint in probe.close()]
    assert not complaints


@pytest.mark.parametrize("name, host", [("IP:127.0.0.1", "127.0.0.1"), ("DNS:localhost", "localhost")])
def test_a_server_that_is_who_it_should_be(make_tls, tmp_path, made, name, host):
    redis = make_tls(name)
    for _ in range(2):
        made.append(Probe(f"rediss://{host}:{redis.tls_port}", ttl_ms=ms(1500), start=False, knows=redis))
        start(made[-1], tmp_path / "cert.pem")
    one, two = made
    one.want()
    one.news("held")
    assert redis("GET", KEY).startswith("gpumgr:")
    assert all(isinstance(one.fence(i), int) for i in range(20))
    two.want()
    two.news("foreign")
    assert is_handed_over_at_once(one, two, 0.1 * lib.SLOWNESS), "it hears of it, over TLS as well"


def test_a_server_that_is_somebody_else(make_tls, tmp_path, made):
    redis = make_tls("DNS:elsewhere.example")
    trusted = Probe(f"rediss://127.0.0.1:{redis.tls_port}", start=False)
    unknown = Probe(f"rediss://127.0.0.1:{redis.tls_port}")
    plain = Probe(f"rediss://127.0.0.1:{redis.port}")
    crossed = Probe(f"redis://127.0.0.1:{redis.tls_port}")
    made += [trusted, unknown, plain, crossed]
    start(trusted, tmp_path / "cert.pem")
    for probe in made:
        probe.unwant()
        probe.want()
    trusted.unavailable("mismatch")
    unknown.unavailable("SSL_CERT_FILE")
    assert "unavailable" in plain.news("unavailable", timeout=6).text
    assert "unavailable" in crossed.news("unavailable", timeout=6).text
