"""The JSON schema is one, and agrees with the parser: on the examples and on single wrong and right values."""

import json
import pathlib
import subprocess
import sys
import tempfile

import jsonschema
import yaml

BASE = """
version: 1
gpu: {backend: sim, sim: {dir: /x, gpus: [24GiB]}}
phases: {2: {name: a, services: [x]}}
services:
  x:
    vram: 4GiB
    process: {command: [/bin/x]}
    health: {tcp: "h:1"}
  y:
    vram: 4GiB
    container: {name: c}
    health: {http: ":80/"}
"""

# What both accept, and what both refuse: a path and a value.
RIGHT = [
    ("socket", "/a"), ("socket_mode", "0600"), ("socket_group", 44), ("open", True), ("token_file", "/t"),
    ("allowed_hosts", ["a.b", "::1"]), ("gpu.reserve", "5%"), ("gpu.reserve", 0), ("gpu.reserve", "1.5 GiB"),
    ("gpu.interval", "1m30s"), ("gpu.interval", 2), ("gpu.gpus", [24576, "16GiB"]), ("lock.ttl", "5 s"),
    ("lock.url", "redis://h"), ("lease.wait", 0), ("phases", None), ("phases.2", None), ("phases.3", {"services": []}),
    ("services.x.vram", "80%"), ("services.x.vram", "${env.NO_SUCH_VARIABLE:-4GiB}"), ("services.x.priority", -3),
    ("services.x.priority", "${env.NO_SUCH_VARIABLE:-7}"), ("services.x.gpus", "any"), ("services.x.gpus", [0, "GPU-a"]),
    ("services.x.yield_after", "never"), ("services.x.pinned", "${env.NO_SUCH_VARIABLE:-true}"),
    ("services.x.process.command", "a b"), ("services.x.process.command", ["a", 1, True]),
    ("services.x.process.environment", {"A": 1, "B": "x"}), ("services.x.process.environment", ["A=1"]),
    ("services.x.process.user", 1000), ("services.x.process.stop_signal", 15),
    ("services.x.process.stop_signal", "SIGINT"), ("services.x.process.type", "forking"),
    ("gpu.gpus", ["${env.NO_SUCH_VARIABLE:-24GiB}"]), ("services.x.gpus", [1, "${env.NO_SUCH_VARIABLE:-0}"]),
    ("allowed_hosts", ["${env.NO_SUCH_VARIABLE:-a.b}"]), ("phases.2.services", ["${env.NO_SUCH_VARIABLE:-x}"]),
    ("services.x.process.command", ["${env.NO_SUCH_VARIABLE:-/bin/x}"]),
    ("services.x.process.environment", ["${env.NO_SUCH_VARIABLE:-A=1}"]), ("services.x.pinned", "yes"), ("open", "OFF"),
    ("services.x.health", {"command": ["a"]}), ("services.x.busy", {"http": "http://h/", "json": "a[0]", "above": 1.5}),
    ("services.y.container", {"compose": {"project": "p", "service": "s"}}), ("services.y.health", {"container": True}),
    ("services.y.container.compose", {"project": "2_a-b", "service": "S.1"}),
    ("services.y.container.compose", {"project": 2024, "service": 1.5}),
]
WRONG = [
    ("version", 2), ("version", None), ("nonsense", 1), ("socket", "a"), ("open", "maybe"), ("allowed_hosts", "a"),
    ("gpu", []), ("gpu.backend", "nvidia"), ("gpu.reserve", "20G"), ("gpu.reserve", True), ("gpu.gpus", []),
    ("gpu.gpus", [20]), ("gpu.sim", {"dir": "/x"}), ("gpu.interval", "2 sec"), ("lock.url", "http://h"),
    ("lease.ttl", "never"), ("phases", ["a"]), ("phases.x", {}), ("phases.04", {}), ("phases.2.name", "4x"),
    ("phases.2.services", "x"), ("services.X", {}), ("services.x.vram", "lots"), ("services.x.priority", 1.5),
    ("services.x.priority", 1000001), ("services.x.gpus", 0), ("services.x.gpus", [64]), ("services.x.gpu_count", 0),
    ("services.x.process", {}), ("services.x.process.command", []), ("services.x.process.environment", "A=1"),
    ("services.x.process.environment", ["A"]), ("services.x.process.type", "notify"), ("services.x.container", {"name": "c"}),
    ("services.x.health", {}), ("services.x.health", {"tcp": "h:1", "http": "http://h/"}), ("services.x.health.retries", 0),
    ("services.x.health", {"timeout": "5s"}), ("services.x.busy", {"above": 1}), ("services.y.container", {"engine": "unix:///x"}),
    ("services.y.container", {"name": "c", "compose": {"project": "p", "service": "s"}}),
    ("services.y.container.compose", {"project": "p"}),
    ("services.y.container.compose", {"project": "Studio", "service": "s"}),
    ("services.y.container.compose", {"project": "p", "service": "a b"}), ("services.y.container.on_external_start", "ignore"),
    ("services.x.on_exit", True), ("services.x.on_exit", "kill"),
]


def with_text_keys(value):
    """JSON has no keys but text; YAML reads the number of a phase as a number."""
    if isinstance(value, dict):
        return {str(key): with_text_keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_text_keys(item) for item in value]
    return value


def changed(path, value):
    config = with_text_keys(yaml.safe_load(BASE))
    *parents, last = path.split(".")
    at = config
    for part in parents:
        at = at.setdefault(part, {})
    at[last] = value
    if path == "services.y.container.compose":
        del at["name"]
    return config


def main():
    program, source_root = sys.argv[1], pathlib.Path(sys.argv[2])
    schema = json.loads(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    cases = [(name, with_text_keys(yaml.safe_load(name.read_text())), True)
             for name in sorted((source_root / "examples").glob("*.yaml"))]
    cases += [(f"{path}: {value!r}", changed(path, value), True) for path, value in RIGHT]
    cases += [(f"{path}: {value!r}", changed(path, value), False) for path, value in WRONG]

    failures = []
    with tempfile.TemporaryDirectory(prefix="gpumgr-test-") as folder:
        files = []
        for i, (_, config, _) in enumerate(cases):
            file = pathlib.Path(folder) / f"{i}.yaml"
            file.write_text(yaml.safe_dump(config, sort_keys=False))
            files.append(str(file))
        verdicts = subprocess.run([program, *files], check=True, capture_output=True, text=True).stdout.split()
    assert len(verdicts) == len(cases)
    for (name, config, expected), verdict in zip(cases, verdicts):
        errors = [error.message for error in validator.iter_errors(config)]
        if (not errors) != expected:
            failures.append(f"{name}: the schema {'refuses: ' + errors[0] if errors else 'accepts'}")
        if (verdict == "accepted") != expected:
            failures.append(f"{name}: {verdict} by the parser")
    print(f"{len(cases)} cases, {len(failures)} failures", *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
