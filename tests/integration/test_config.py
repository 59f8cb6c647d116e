"""Configuration: what is good, what is bad, and that the words help."""

import json
import os
from pathlib import Path

import gpumgr_testlib as lib
import jsonschema
import pytest
import yaml
from gpumgr_testlib import DONE, USAGE, text_of

ENVIRONMENT = {"PATH": os.environ["PATH"]}

GOOD = """\
version: 1
gpu: {backend: sim, reserve: 1GiB, sim: {dir: /tmp/nowhere, gpus: [24GiB]}}
phases:
  1: {name: crawl}
  2: {name: analysis, services: [vidi]}
services:
  vidi:
    vram: 4000MiB
    priority: 40
    process: {command: [/opt/vidi/start.sh], user: nobody}
    health: {http: "http://127.0.0.1:8099/health", timeout: 90s}
"""


def check(path, text):
    path.write_text(text)
    return lib.run_tool([lib.GPUMGR, "config", "check", path], ENVIRONMENT)


def test_a_good_file(tmp_path):
    path = tmp_path / "gpumgr.yaml"
    result = check(path, GOOD)
    assert result.returncode == DONE, text_of(result)
    result = lib.run_tool([lib.GPUMGRD, "-c", path, "--check"], ENVIRONMENT, timeout=10)
    assert result.returncode == DONE, text_of(result)


@pytest.mark.parametrize("path", sorted((lib.SOURCE_ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_the_examples(path):
    result = lib.run_tool([lib.GPUMGR, "config", "check", path], ENVIRONMENT)
    assert result.returncode == DONE, text_of(result)


# What is put in place of a piece of the good file; the line that must be named; words that must be said.
BAD = {
    "unknown key": ("    priority: 40", "    prority: 40", 9, ["services.vidi.prority", "priority"]),
    "key of another tool": ("    vram: 4000MiB", "    vram_mb: 4000", 8, ["vram_mb", "vram"]),
    "cmd": ("{command: [/opt/vidi/start.sh]", "{cmd: /opt/vidi/start.sh", 10, ["cmd", "command"]),
    "wrong type": ("    priority: 40", "    priority: high", 9, ["services.vidi.priority"]),
    "a list for a map": ("services:\n  vidi:", "services:\n - vidi:", 7, ["services"]),
    "too small": ("vram: 4000MiB", "vram: 20", 8, ["services.vidi.vram", "20GiB"]),
    "negative": ("vram: 4000MiB", "vram: -5GiB", 8, ["services.vidi.vram"]),
    "no such unit": ("vram: 4000MiB", "vram: 4000Mib", 8, ["services.vidi.vram"]),
    "unknown service": ("services: [vidi]", "services: [vido]", 5, ["vido", "vidi"]),
    "phase 0": ("  1: {name: crawl}", "  0: {name: crawl}", 4, ["phases"]),
    "duplicate phase": ("  1: {name: crawl}", "  2: {name: crawl}", 5, ["2"]),
    "bad name": ("  vidi:\n", "  Vidi!:\n", 7, ["Vidi!"]),
    "bad url": ('"http://127.0.0.1:8099/health"', '"ftp://127.0.0.1/x"', 11, ["services.vidi.health.http"]),
    "duration": ("timeout: 90s", "timeout: soon", 11, ["services.vidi.health.timeout"]),
    "version": ("version: 1", "version: 2", 1, ["version"]),
    "yaml": ("phases:", "phases: [", 5, ["YAML"]),
    "tab": ("    vram: 4000MiB", "\tvram: 4000MiB", 8, []),
    "two of a kind": ("    priority: 40", "    priority: 40\n    priority: 41", 10, ["priority"]),
    "bad backend": ("backend: sim", "backend: simm", 2, ["gpu.backend", "sim"]),
    "unset variable": ("/opt/vidi/start.sh", '"${env.GPUMGR_SURELY_NOT_SET}/x"', 10, ["GPUMGR_SURELY_NOT_SET"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file(tmp_path, name):
    before, after, line, words = BAD[name]
    assert before in GOOD
    path = tmp_path / "gpumgr.yaml"
    result = check(path, GOOD.replace(before, after, 1))
    assert result.returncode == USAGE, text_of(result)
    output = result.stdout + result.stderr
    assert f"{path}:{line}:" in output, f"line {line} is not named\n{text_of(result)}"
    for word in words:
        assert word in output, text_of(result)
    result = lib.run_tool([lib.GPUMGRD, "-c", path, "--check"], ENVIRONMENT, timeout=10)
    assert result.returncode == USAGE, text_of(result)
    result = lib.run_tool([lib.GPUMGRD, "-c", path, "--socket", tmp_path / "s"], ENVIRONMENT, timeout=10)
    assert result.returncode == USAGE, text_of(result)
    assert not (tmp_path / "s").exists()


def test_a_warning_is_said_once(tmp_path):
    path = tmp_path / "gpumgr.yaml"
    result = check(path, GOOD + "lock: {url: 'redis://h'}\n")
    assert result.returncode == DONE, text_of(result)
    line = next(line for line in (result.stdout + result.stderr).splitlines() if "lock.url" in line)
    assert line.startswith(f"{path}:12:8: lock.url: warning: ") and "warning" not in line.split("warning: ", 1)[1]
    result = lib.run_tool([lib.GPUMGRD, "-c", path, "--check"], ENVIRONMENT, timeout=10)
    assert result.returncode == DONE and line in result.stderr.splitlines(), text_of(result)


def test_all_errors_in_one_pass(tmp_path):
    text = GOOD.replace("priority: 40", "prority: 40").replace("timeout: 90s", "timeout: soon")
    text = text.replace("[vidi]", "[nobody]").replace("    vram: 4000MiB\n", "")
    result = check(tmp_path / "gpumgr.yaml", text)
    output = result.stdout + result.stderr
    for word in ("prority", "timeout", "nobody", "vram"):
        assert word in output, text_of(result)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n", "x", "\0\0", "a: &a [*a]\n", "{" * 5000, "\xff\xfe"], ids=range(8))
def test_files_that_are_no_configuration(tmp_path, text):
    path = tmp_path / "gpumgr.yaml"
    path.write_bytes(text.encode("latin-1"))
    result = lib.run_tool([lib.GPUMGR, "config", "check", path], ENVIRONMENT, timeout=10)
    assert result.returncode == USAGE, text_of(result)
    assert str(path) in result.stdout + result.stderr


def test_aliases_that_explode(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    result = check(tmp_path / "gpumgr.yaml", "\n".join(lines) + "\n")
    assert result.returncode == USAGE, text_of(result)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        result = lib.run_tool([lib.GPUMGR, "config", "check", path], ENVIRONMENT)
        assert result.returncode == USAGE, text_of(result)
        assert str(path) in result.stdout + result.stderr
        result = lib.run_tool([lib.GPUMGRD, "-c", path], ENVIRONMENT, timeout=10)
        assert result.returncode == USAGE, text_of(result)
        assert str(path) in result.stderr


def test_the_schema_is_one_and_takes_the_examples():
    result = lib.run_tool([lib.GPUMGR, "config", "schema"], ENVIRONMENT)
    assert result.returncode == DONE, text_of(result)
    schema = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in (lib.SOURCE_ROOT / "examples").glob("*.yaml"):
        # JSON knows only text as keys.
        document = json.loads(json.dumps(yaml.safe_load(path.read_text())))
        errors = [f"{path.name}: {e.json_path}: {e.message}" for e in validator.iter_errors(document)]
        assert not errors, errors
    good = json.loads(json.dumps(yaml.safe_load(GOOD)))
    assert validator.is_valid(good)
    good["services"]["vidi"]["prority"] = 1
    assert not validator.is_valid(good)


def test_the_reference_names_every_key():
    result = lib.run_tool([lib.GPUMGR, "config", "reference"], ENVIRONMENT)
    assert result.returncode == DONE, text_of(result)
    for key in ("reserve", "vram", "priority", "command", "stop_timeout", "timeout", "listen", "token_file", "sim"):
        assert key in result.stdout


def test_the_default_places(tmp_path):
    """As a user the daemon lives in the XDG folders; as root they are the system's, so only the message is tested."""
    if os.getuid() == 0 and Path("/etc/gpumgr/gpumgr.yaml").exists():
        pytest.skip("a gpumgrd of root would run with this machine's own configuration")
    result = lib.run_tool([lib.GPUMGRD], {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, timeout=10)
    assert result.returncode == USAGE, text_of(result)
    assert "gpumgr.yaml" in result.stderr
