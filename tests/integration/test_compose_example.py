"""examples/compose, run for real: its own files, with gpumgr-simsvc in the place of what needs a GPU.

The engine of these tests believes in NVIDIA's runtime: what Docker Engine asks for is a program of a certain name, which
here does nothing. So the GPU reservations are taken as they stand.
"""

import grp
import json
import os
import re
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import docker_engine
import gpumgr_testlib as lib
import lease_client
import pytest
import yaml
from conftest import needs_root
from docker_engine import DockerEngine
from gpumgr_testlib import actions, eventually

# Nothing in it depends on how gpumgr was compiled; once is enough.
pytestmark = pytest.mark.newcomer

EXAMPLE = lib.SOURCE_ROOT / "examples/compose"
TOKEN = "0123456789abcdef0123456789abcdef"
# A group that every Linux has and that is not the callers' own.
GROUP = grp.getgrnam("users")


def settings():
    """The example's .env."""
    lines = (EXAMPLE / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


PROJECT = settings()["COMPOSE_PROJECT_NAME"]
GPU_SERVICES = {"ollama", "speech", "comfyui"}


def run_compose(*args, files=(), environment=None, timeout=60):
    command = [docker_engine.find_tool("docker-compose"), "--project-directory", EXAMPLE]
    for file in (EXAMPLE / "compose.yaml", *files):
        command += ["-f", file]
    known = {"PATH": docker_engine.TOOL_PATH, "HOME": "/nonexistent"}
    return lib.run_tool([*command, *args], {**known, **(environment or {})}, timeout)


# --- the files ----------------------------------------------------------------------------------------------------


def test_compose_accepts_the_example():
    result = run_compose("--profile", "gpu", "config")
    assert result.returncode == 0, lib.text_of(result)
    services = yaml.safe_load(result.stdout)["services"]
    assert set(services) == GPU_SERVICES | {"writer", "painter"}
    for name in GPU_SERVICES:
        assert services[name]["profiles"] == ["gpu"] and services[name]["restart"] == "no", name
        [device] = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and device["device_ids"] == ["0"] and device["capabilities"] == ["gpu"]
    # A dependency would start a GPU service past gpumgr.
    for service in services.values():
        assert not GPU_SERVICES & set(service.get("depends_on", ())), service


def check(path):
    environment = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    return lib.run_tool([lib.GPUMGR, "config", "check", path], environment)


def test_the_configuration_goes_with_the_compose_file():
    result = check(EXAMPLE / "gpumgr.yaml")
    assert result.returncode == 0 and "warning" not in result.stdout + result.stderr, lib.text_of(result)
    config = yaml.safe_load((EXAMPLE / "gpumgr.yaml").read_text())
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
    assert set(config["services"]) == GPU_SERVICES
    for name, service in config["services"].items():
        if "compose" in service["container"]:
            assert service["container"]["compose"] == {"project": PROJECT, "service": name}
        else:
            assert service["container"]["name"] == compose[name]["container_name"]
        if service["health"].get("container"):
            assert "healthcheck" in compose[name]
    assert config["token_file"] == settings()["GPUMGR_TOKEN_FILE"]
    port = config["listen"][0].rpartition(":")[2]
    assert f"host.docker.internal:{port}$2" in (EXAMPLE / "callers/paint.sh").read_text()
    for script in (EXAMPLE / "callers").iterdir():
        is_read = script.name == "lease.sh"  # by the others, and never run
        assert os.access(script, os.X_OK) != is_read and lib.run_tool(["sh", "-n", script], os.environ).returncode == 0


def test_the_configurations_of_the_documentation(tmp_path):
    text = (lib.SOURCE_ROOT / "docs/containers.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    configs = [block for block in blocks if any("vram" in service for service in block.get("services", {}).values())]
    assert len(configs) >= 2
    for number, config in enumerate(configs):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"version": 1, **config}))
        result = check(path)
        assert result.returncode == 0, lib.text_of(result)


def plain(program):
    """The one without sanitizers, where there is one: these need more rights than a container has."""
    other = lib.SOURCE_ROOT / os.environ.get("BUILD", "build") / program.relative_to(lib.BUILD_DIR)
    return other if other.exists() else program


# --- running it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpu_engine(tmp_path_factory):
    """An engine that takes GPU reservations, and on which host.docker.internal is the host."""
    needs_root()
    folder = tmp_path_factory.mktemp("nvidia")
    hook = folder / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\nexit 0\n")
    hook.chmod(0o755)
    subnet = f"10.213.{lib.own_number()}"
    engine = DockerEngine(arguments=[f"--host-gateway-ip={subnet}.1"], path=[folder])
    engine.subnet = subnet
    try:
        engine.start()
        engine.import_image("caller:test", [docker_engine.find_tool("curl"), plain(lib.GPUMGR), plain(lib.GPUMGRD)])
        yield engine
    finally:
        complaints = engine.close()
        assert not complaints, "; ".join(complaints)


class Studio:
    """The example on an engine: its compose file with simulated services, and a gpumgrd of its configuration."""

    def __init__(self, engine, make_daemon):
        self.engine = engine
        self.port = lib.free_port()
        self.folder = engine.root / "studio"
        self.folder.mkdir()
        self.token = self.folder / "token"
        self.token.write_text(TOKEN + "\n")
        shutil.chown(self.token, group=GROUP.gr_gid)
        self.token.chmod(0o640)
        self.sim_dir = self.folder / "sim"
        lib.make_sim_dir(self.sim_dir)
        self.override = self.folder / "override.yaml"
        self.override.write_text(yaml.safe_dump(self.changes()))
        self.daemon = make_daemon(text=self.configuration(), sim_dir=self.sim_dir, start=False)
        self.run_dir = self.daemon.socket.parent

    def changes(self):
        """What stands in for the GPU programs."""

        def sim(vram, port, path):
            options = [f"--port={port}", f"--vram={vram}", f"--health-path={path}", "--address=0.0.0.0", "--boot=0.3"]
            return {
                "entrypoint": ["/bin/gpumgr-simsvc", *options],
                "pid": "host",  # its number must be the one of the simulated card's folder
                "environment": {"GPUMGR_SIM_DIR": str(self.sim_dir)},
                "volumes": [f"{self.sim_dir}:{self.sim_dir}"],
            }

        url = "http://127.0.0.1:11434/api/tags"
        services = {
            "ollama": sim(18 * 1024, 11434, "/api/tags"),
            "speech": sim(4 * 1024, 8880, "/health"),
            "comfyui": sim(20 * 1024, 8188, "/system_stats"),
        }
        services["ollama"]["healthcheck"] = {"test": ["CMD", "wget", "-q", "-O", "/dev/null", url]}
        bridge = {"com.docker.network.bridge.name": docker_engine.bridge_name(self.engine.root)}
        network = {"driver_opts": bridge, "ipam": {"config": [{"subnet": f"{self.engine.subnet}.0/24"}]}}
        return {"services": services, "networks": {"default": network}}

    def configuration(self):
        """The example's gpumgr.yaml, on the simulated card and this engine."""
        text = (EXAMPLE / "gpumgr.yaml").read_text()
        for before, after in (
            ("socket_group: gpumgr", f"socket_group: {GROUP.gr_name}"),
            ("172.17.0.1:8700", f"{self.engine.subnet}.1:8700"),
            ("/etc/gpumgr/token", str(self.token)),
            ("gpu:\n", f"gpu:\n  backend: sim\n  sim: {{dir: {self.sim_dir}, gpus: [24GiB]}}\n"),
        ):
            assert before in text, before
            text = text.replace(before, after)
        config = yaml.safe_load(text)
        config["socket_mode"] = "0660"  # a number to gpumgr, and another one to YAML
        for service in config["services"].values():
            service["container"]["engine"] = self.engine.url
            service["health"]["interval"] = "500ms"
        return yaml.safe_dump(config, sort_keys=False)

    def compose(self, *args, ok=True, timeout=60):
        environment = {
            "DOCKER_HOST": self.engine.url,
            "OLLAMA_IMAGE": docker_engine.IMAGE,
            "COMFYUI_IMAGE": docker_engine.IMAGE,
            "SPEECH_IMAGE": docker_engine.IMAGE,
            "CALLER_IMAGE": "caller:test",
            "COMFYUI_PORT": str(self.port),
            "GPUMGR_RUN": str(self.run_dir),
            "GPUMGR_GID": str(GROUP.gr_gid),
            "GPUMGR_TOKEN_FILE": str(self.token),
        }
        result = run_compose(*args, files=[self.override], environment=environment, timeout=timeout)
        assert not ok or result.returncode == 0, lib.text_of(result)
        return result

    def prepare(self):
        """The README's step: the containers of the GPU services, none of them running."""
        self.compose("up", "--no-start", *sorted(GPU_SERVICES))

    def containers(self):
        """The project's containers by their service, one-off ones left out."""
        found = {}
        filters = json.dumps({"label": [f"com.docker.compose.project={PROJECT}", "com.docker.compose.oneoff=False"]})
        for container in self.engine.request("GET", f"/containers/json?all=1&filters={quote(filters)}").ok():
            found[container["Labels"]["com.docker.compose.service"]] = container
        return found

    def running(self):
        return {name for name, container in self.containers().items() if container["State"] == "running"}

    def inspect(self, service):
        return self.engine.request("GET", f"/containers/{self.containers()[service]['Id']}/json").ok()

    def output(self, service):
        return self.engine.cli("logs", self.containers()[service]["Id"]).stdout

    def clear(self):
        for container in self.engine.request("GET", "/containers/json?all=1").ok():
            self.engine.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        self.engine.request("DELETE", f"/networks/{PROJECT}_default")
        shutil.rmtree(self.folder)


@pytest.fixture
def studio(gpu_engine, make_daemon):
    studio = Studio(gpu_engine, make_daemon)
    try:
        yield studio
    finally:
        studio.clear()


def test_compose_leaves_the_gpu_services_alone(studio):
    studio.prepare()
    assert set(studio.containers()) == GPU_SERVICES and studio.running() == set()
    # Without a daemon the callers fail, and say why; still nothing has started a GPU service.
    result = studio.compose("up", ok=False)
    assert "writer" in result.stdout + result.stderr
    assert studio.inspect("writer")["State"]["ExitCode"] == 7, "curl: cannot connect"
    assert studio.running() == set()


def next_of_a_lease(events):
    facts = events.until(lambda event: event["event"] == "lease")[-1]["data"]["data"]
    return facts["state"], facts.get("reason")


def test_the_callers_hold_what_they_use(studio):
    studio.prepare()
    studio.daemon.start()
    assert set(studio.daemon.states().values()) == {"stopped"}

    # Through the socket in its folder, then over TCP with the token.
    with studio.daemon.events(timeout=60) as events:
        studio.compose("up", "-d")
        told = [next_of_a_lease(events) for _ in range(4)]
    assert told == [("granted", None), ("ended", "released")] * 2
    assert lease_client.held(studio.daemon) == []
    eventually(lambda: studio.inspect("painter")["State"]["Status"] == "exited", "the painter is done", 30)
    for caller in ("writer", "painter"):
        output = studio.output(caller)
        assert studio.inspect(caller)["State"]["ExitCode"] == 0, output
        assert re.match(r"lease \d+ on (write|draw)\n", output)
        assert output.rstrip().endswith("ok"), "it has used the service"

    # Comfyui needed the room of ollama.
    assert studio.daemon.ready() == {"comfyui"} and studio.running() == {"comfyui"}
    status = studio.daemon.service("comfyui")
    state = studio.inspect("comfyui")["State"]
    assert status["pid"] == state["Pid"] and status["external_starts"] == 0
    studio.daemon.wait_for_reading()
    assert studio.daemon.service("comfyui")["measured_mb"] == 20 * 1024
    assert studio.inspect("ollama")["State"]["ExitCode"] == 0, "it was asked to stop, not killed"
    environment = Path(f"/proc/{state['Pid']}/environ").read_bytes().split(b"\0")
    assert b"NVIDIA_VISIBLE_DEVICES=0" in environment

    # Once more: what is idle makes room, whatever its priority.
    studio.compose("up", "-d", "writer")
    eventually(lambda: studio.output("writer").count("lease ") == 2, "the writer has its turn", 30)
    eventually(lambda: studio.inspect("writer")["State"]["Status"] == "exited", "and is done", 30)
    assert studio.inspect("writer")["State"]["ExitCode"] == 0 and studio.daemon.ready() == {"ollama"}
    studio.daemon.phase("draw").ok()

    # And back: one found by its name, one by Docker's own health check.
    assert actions(studio.daemon.phase("speak").ok()["steps"]) == [("stop", "comfyui"), ("start", "speech")]
    assert actions(studio.daemon.phase("write").ok()["steps"]) == [("start", "ollama")]
    assert studio.inspect("ollama")["State"]["Health"]["Status"] == "healthy"
    assert studio.running() == {"ollama", "speech"}


def test_a_caller_that_is_stopped_lets_go(studio):
    """And one that is killed does by the time of its lease, which it renewed."""
    studio.prepare()
    studio.daemon.start()
    work = "curl --silent --show-error --fail http://ollama:11434/api/tags\n"
    script = (EXAMPLE / "callers/write.sh").read_text()
    assert script.endswith(work)
    ttl = max(3, int(2 * lib.SLOWNESS))
    script = f"ttl_s={ttl}\n" + script.replace(work, "sleep 1000 &\nwait\n")
    for end, reason in (("stop", "released"), ("kill", "expired")):
        number = studio.compose("run", "-d", "--no-deps", "--entrypoint", "sh", "writer", "-c", script).stdout.split()[-1]
        with studio.daemon.events(timeout=60) as events:
            eventually(lambda: lease_client.held(studio.daemon), "it holds a lease", 20)
            [before] = lease_client.held(studio.daemon)
            time.sleep(ttl + 0.5)  # longer than its time
            studio.daemon.phase("draw", wait_s=0.2).problem(504, "wait_timeout")
            assert studio.running() >= {"ollama"}, "nobody stops what it holds"
            studio.engine.cli(end, number)
            eventually(lambda: not lease_client.held(studio.daemon), "it has let go", 20)
            events.until(lambda event: event["event"] == "lease" and event["data"]["data"].get("reason") == reason)
        assert before["services"] == ["ollama"] and before["phase"] == 1


def test_the_folder_of_the_socket_outlives_a_restart_of_the_daemon(studio):
    """Why the callers get the folder and not the socket."""
    studio.daemon.start()
    ask = "curl -sS --fail --unix-socket /run/gpumgr/gpumgr.sock http://localhost/gpu/version"
    options = ["run", "-d", "--network=none", f"--user=65534:{GROUP.gr_gid}"]
    for name, mount in (("folder", f"{studio.run_dir}:/run/gpumgr:ro"), ("file", f"{studio.daemon.socket}:/run/gpumgr/gpumgr.sock")):
        result = studio.engine.cli(*options, f"--name={name}", "-v", mount, "caller:test", "sleep", "1000")
        assert result.returncode == 0, lib.text_of(result)

    def answers(name):
        return studio.engine.cli("exec", name, *ask.split()).returncode == 0

    assert answers("folder") and answers("file")
    studio.daemon.restart()
    assert answers("folder")
    assert not answers("file")


def test_who_may_ask(studio):
    studio.daemon.start()
    studio.compose("up", "--no-start", "writer")

    def ask(*options):
        run = ["run", "--rm", f"--network={PROJECT}_default", f"--add-host=host.docker.internal:{studio.engine.subnet}.1"]
        return studio.engine.cli(*run, *options)

    # The socket wants the group.
    mount = f"-v={studio.run_dir}:/run/gpumgr:ro"
    curl = ["caller:test", "curl", "-sS", "--unix-socket", "/run/gpumgr/gpumgr.sock", "http://localhost/gpu/version"]
    assert ask("--user=65534:65534", mount, *curl).returncode == 7
    assert ask("--user=65534:65534", f"--group-add={GROUP.gr_gid}", mount, *curl).returncode == 0

    # TCP wants the token, and a name of ours.
    base = ["caller:test", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"]
    url = "http://host.docker.internal:8700/gpu/version"
    good = f"Authorization: Bearer {TOKEN}"
    assert ask(*base, url).stdout == "401"
    assert ask(*base, "-H", "Authorization: Bearer wrong", url).stdout == "401"
    assert ask(*base, "-H", good, url).stdout == "200"
    assert ask(*base, "-H", good, "-H", "Host: elsewhere.example.org", url).stdout == "403"


def test_the_command_line_works_in_a_container(studio):
    studio.prepare()
    studio.daemon.start()
    run = ["run", "--rm", "-T", "--no-deps", "--entrypoint", "gpumgr"]
    # The default socket is where the folder is mounted.
    result = studio.compose(*run, "writer", "phase", "speak")
    assert "start speech" in result.stdout, lib.text_of(result)
    settings = ["-e", "GPUMGR_URL=http://host.docker.internal:8700", "-e", "GPUMGR_TOKEN_FILE=/run/secrets/gpumgr_token"]
    result = studio.compose(*run, *settings, "painter", "status")
    assert "speech" in result.stdout and "ready" in result.stdout, lib.text_of(result)


def test_started_past_gpumgr(studio):
    """What on_external_start of the example says: ollama is adopted, comfyui is stopped again."""
    # Comfyui finds no room for its memory: it must not end by itself before it was seen.
    changes = studio.changes()
    command = changes["services"]["comfyui"]["entrypoint"]
    changes["services"]["comfyui"]["entrypoint"] = [word.replace("--boot=0.3", "--boot=500") for word in command]
    studio.override.write_text(yaml.safe_dump(changes))
    studio.prepare()
    studio.daemon.start()
    studio.compose("up", "-d", "ollama")
    eventually(lambda: studio.daemon.service("ollama")["state"] == "ready", "it is adopted", 10)
    assert studio.daemon.service("ollama")["external_starts"] == 1
    assert studio.daemon.service("ollama")["pid"] == studio.inspect("ollama")["State"]["Pid"]
    studio.compose("up", "-d", "comfyui")
    eventually(lambda: studio.daemon.service("comfyui")["external_starts"] == 1, "it is seen", 10)
    eventually(lambda: studio.running() == {"ollama"}, "it is stopped again", 10)
    assert studio.daemon.ready() == {"ollama"}
    # Stopped past gpumgr: seen, and not undone.
    studio.compose("stop", "ollama")
    eventually(lambda: not studio.daemon.service("ollama")["live"], "the stop is seen", 10)
    record = studio.daemon.service("ollama")
    assert record["state"] == "stopped" and record["error"] is None
    assert "exited with status 0" in studio.daemon.log()


def test_containers_that_are_made_again(studio):
    studio.prepare()
    studio.daemon.start()
    studio.daemon.start_service("ollama").ok()
    studio.daemon.stop_service("ollama").ok()
    before = studio.containers()["ollama"]["Id"]
    studio.compose("rm", "--force", "ollama")
    problem = studio.daemon.start_service("ollama").problem(500, "container_not_found")
    assert f"-p {PROJECT} up --no-start ollama" in problem["detail"]
    studio.prepare()
    assert studio.containers()["ollama"]["Id"] != before
    studio.daemon.start_service("ollama").ok()
    assert studio.running() == {"ollama"}
    # Also while it runs: Compose removes it and makes another.
    studio.compose("up", "-d", "--force-recreate", "ollama")
    pid = studio.inspect("ollama")["State"]["Pid"]
    eventually(lambda: studio.daemon.service("ollama")["pid"] == pid, "the new one is adopted", 10)
    eventually(lambda: studio.daemon.service("ollama")["state"] == "ready", "it is ready", 10)


def test_the_daemon_in_a_container(studio):
    """What docs/containers.md says of it: its services outlive it, and the next one finds them."""
    studio.prepare()
    daemon = studio.daemon  # never started: who asks, and where the files lie
    daemon.state_dir.mkdir()
    config = yaml.safe_load(daemon.config_path.read_text())
    config["socket_group"] = str(GROUP.gr_gid)  # there is no /etc/group in the image
    daemon.config_path.write_text(yaml.safe_dump(config))
    command = ["/bin/gpumgrd", "-c", daemon.config_path, "--socket", daemon.socket, "--state-dir", daemon.state_dir]
    binds = [f"{path}:{path}" for path in (studio.engine.socket, daemon.root, studio.folder)]
    body = {
        "Image": "caller:test",
        "Cmd": list(map(str, command)),
        "HostConfig": {"PidMode": "host", "NetworkMode": "host", "Binds": binds},
    }

    def answers():
        return daemon.socket.exists() and set(daemon.states().values()) <= {"stopped", "ready"}

    def start():
        number = studio.engine.request("POST", "/containers/create", body).ok(201)["Id"]
        assert studio.engine.request("POST", f"/containers/{number}/start").status == 204
        eventually(answers, "it answers", 10)
        return number

    first = start()
    assert actions(daemon.phase("write").ok()["steps"]) == [("start", "ollama")]
    pid = studio.inspect("ollama")["State"]["Pid"]
    assert daemon.service("ollama")["pid"] == pid
    daemon.wait_for_reading()
    assert daemon.service("ollama")["measured_mb"] == 18 * 1024
    studio.engine.request("POST", f"/containers/{first}/kill")
    assert lib.is_alive(pid)

    daemon.socket.unlink()
    second = start()
    assert daemon.service("ollama")["state"] == "ready" and daemon.service("ollama")["pid"] == pid
    assert daemon.service("ollama")["external_starts"] == 0
    assert actions(daemon.phase("draw").ok()["steps"]) == [("stop", "ollama"), ("start", "comfyui")]
    assert not lib.is_alive(pid)
    # In good order, and so without its socket.
    assert studio.engine.request("POST", f"/containers/{second}/stop").status == 204
    assert not daemon.socket.exists()


def test_one_off_containers_and_scaled_services(studio):
    """`docker compose run` makes containers with the same labels, and so does --scale."""
    studio.prepare()
    studio.daemon.start()
    studio.compose("run", "-d", "--no-deps", "--entrypoint", "/bin/sleep 1000", "ollama")
    studio.daemon.start_service("ollama").ok()
    assert studio.daemon.service("ollama")["pid"] == studio.inspect("ollama")["State"]["Pid"]
    assert studio.daemon.service("ollama")["external_starts"] == 0
    studio.daemon.stop_service("ollama").ok()

    studio.compose("up", "--no-start", "--scale", "ollama=2", "ollama")
    problem = studio.daemon.start_service("ollama").problem(500, "start_failed")
    assert "2 containers" in problem["detail"], problem
    assert studio.running() == set()
