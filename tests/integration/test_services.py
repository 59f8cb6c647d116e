"""Services that behave badly: deaf, crashing, hanging, forking, escaping, lying about their health."""

import os
import pwd
import resource
import signal
import socket
import time
from pathlib import Path

import gpumgr_testlib as lib
import pytest
from gpumgr_testlib import SIMSVC, SLOWNESS, Background, eventually, is_alive


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def ended_state(daemon, name, words):
    """The service in error, with `words` in what is told about it."""
    service = eventually(
        lambda: daemon.service(name) if daemon.state(name) == "error" else None, f"{name} is in error"
    )
    for word in words:
        assert word in (service["error"] or ""), service
    return service


# --- stopping ---------------------------------------------------------------------------------------------------


def test_deaf_to_sigterm(make_daemon):
    service = lib.sim_service(4000, 50, "--ignore-term", process={"stop_timeout": "0.5s"})
    daemon = make_daemon({"deaf": service})
    daemon.start_service("deaf").ok()
    pid = daemon.service("deaf")["pid"]
    body = daemon.stop_service("deaf").ok()
    assert 450 <= body["duration_ms"] < 500 + 1500 * SLOWNESS
    assert not is_alive(pid)
    assert daemon.state("deaf") == "stopped" and daemon.sim_total() == 0


def test_a_forced_stop_kills_at_once(make_daemon):
    service = lib.sim_service(4000, 50, "--ignore-term", process={"stop_timeout": "20s"})
    daemon = make_daemon({"deaf": service})
    daemon.start_service("deaf").ok()
    body = daemon.stop_service("deaf", force=1).ok()
    assert body["duration_ms"] < 1000 * SLOWNESS
    assert daemon.state("deaf") == "stopped"


def test_a_forced_stop_overtakes_a_gentle_one(make_daemon):
    service = lib.sim_service(4000, 50, "--ignore-term", process={"stop_timeout": "20s"})
    daemon = make_daemon({"deaf": service})
    daemon.start_service("deaf").ok()
    gentle = Background(daemon.stop_service, "deaf")
    eventually(lambda: daemon.state("deaf") == "stopping", "it is being stopped")
    began = time.monotonic()
    daemon.stop_service("deaf", force="yes").ok()
    assert time.monotonic() - began < 2 * SLOWNESS
    assert gentle.result().status in (200, 409)
    assert daemon.state("deaf") == "stopped"


def test_slow_to_stop_is_waited_for(make_daemon):
    daemon = make_daemon({"slow": lib.sim_service(4000, 50, "--stop-delay=0.6")})
    daemon.start_service("slow").ok()
    body = daemon.stop_service("slow").ok()
    assert 550 <= body["duration_ms"] < 600 + 1000 * SLOWNESS


def test_stopping_twice_is_no_error(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    assert daemon.stop_service("a").ok()["steps"] == []
    daemon.start_service("a").ok()
    daemon.stop_service("a").ok()
    assert daemon.stop_service("a").ok()["steps"] == []


def test_restart(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.restart_service("a").ok()
    first = daemon.service("a")["pid"]
    body = daemon.restart_service("a").ok()
    assert lib.actions(body["steps"]) == [("stop", "a"), ("start", "a")]
    second = daemon.service("a")["pid"]
    assert first != second and not is_alive(first) and is_alive(second)


def test_release_all(pipeline):
    pipeline.phase(2).ok()
    pipeline.phase(3).ok()
    body = pipeline.post("/gpu/release-all").ok()
    assert body["success"] is True and sorted(body["stopped"]) == ["cosyvoice", "vidi"]
    assert set(pipeline.states().values()) == {"stopped"}
    assert pipeline.sim_total() == 0
    assert pipeline.post("/gpu/release-all").ok()["stopped"] == []


def test_a_forced_stop_during_the_start(make_daemon):
    daemon = make_daemon({"slow": lib.sim_service(4000, 50, "--boot=10", timeout="20s")})
    start = Background(daemon.start_service, "slow")
    eventually(lambda: daemon.state("slow") == "starting" and daemon.service("slow")["pid"], "it starts")
    began = time.monotonic()
    daemon.stop_service("slow", force=1).ok()
    start.result().problem(409, "stopped")
    assert time.monotonic() - began < 2 * SLOWNESS
    assert daemon.state("slow") == "stopped"
    assert daemon.gpu()["committed_mb"] == 0


# --- processes of all kinds ---------------------------------------------------------------------------------------


def test_children_end_with_their_service(make_daemon):
    daemon = make_daemon({"family": lib.sim_service(4000, 50, "--children=3")})
    daemon.start_service("family").ok()
    eventually(lambda: len(daemon.service_processes()) >= 4, "the children are there")
    daemon.stop_service("family").ok()
    assert daemon.service_processes() == []


def test_deaf_children_are_killed(make_daemon):
    service = lib.sim_service(4000, 50, "--children=3", "--children-deaf", process={"stop_timeout": "0.5s"})
    daemon = make_daemon({"family": service})
    daemon.start_service("family").ok()
    eventually(lambda: len(daemon.service_processes()) >= 4, "the children are there")
    daemon.stop_service("family").ok()
    assert daemon.service_processes() == []
    assert daemon.state("family") == "stopped"


def test_a_child_in_a_session_of_its_own_does_not_escape(make_daemon):
    service = lib.sim_service(4000, 50, "--new-session-child", process={"stop_timeout": "0.5s"})
    daemon = make_daemon({"fugitive": service})
    daemon.start_service("fugitive").ok()
    eventually(lambda: len(daemon.service_processes()) >= 2, "the child is there")
    daemon.stop_service("fugitive").ok()
    assert daemon.service_processes() == []


def test_a_script_that_does_not_exec(make_daemon):
    port = lib.free_port()
    script = f"{SIMSVC} --port={port} --vram=4000; echo never reached >&2"
    daemon = make_daemon({"script": lib.shell_service(script, port=port)})
    daemon.start_service("script").ok()
    eventually(lambda: daemon.service("script")["measured_mb"] == 4000, "its memory is its own")
    assert daemon.gpu()["foreign_mb"] == 0
    daemon.stop_service("script").ok()
    assert daemon.service_processes() == [] and daemon.sim_total() == 0


def test_a_script_that_puts_itself_into_the_background(make_daemon):
    port = lib.free_port()
    other = lib.free_port()
    script = "{} --port={} --vram=4000 --boot=0.2 & exit 0"
    services = {
        "forking": lib.shell_service(script.format(SIMSVC, port), port=port, process={"type": "forking"}),
        "simple": lib.shell_service(script.format(SIMSVC, other), port=other),
    }
    daemon = make_daemon(services)
    daemon.start_service("forking").ok()
    assert daemon.sim_total() == 4000
    eventually(lambda: daemon.service("forking")["measured_mb"] == 4000, "its memory is its own")
    daemon.stop_service("forking").ok()
    assert daemon.service_processes() == []

    # As type simple its end is the end of the service, and what it left behind is ended with it.
    began = time.monotonic()
    problem = daemon.start_service("simple").problem(500, "start_failed")
    assert time.monotonic() - began < 3 * SLOWNESS
    assert "forking" in problem["detail"]
    eventually(lambda: daemon.service_processes() == [], "nothing is left of it")


def test_a_forking_service_with_a_pid_file(make_daemon, tmp_path):
    pid_file = tmp_path / "svc.pid"
    service = lib.sim_service(
        4000, 50, "--fork", f"--pid-file={pid_file}", process={"type": "forking", "pid_file": str(pid_file)}
    )
    daemon = make_daemon({"forker": service})
    daemon.start_service("forker").ok()
    pid = int(pid_file.read_text())
    assert is_alive(pid) and daemon.sim_use() == {pid: 4000}
    eventually(lambda: daemon.service("forker")["measured_mb"] == 4000, "its memory is its own")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: daemon.state("forker") == "error", "the end is noticed")
    daemon.start_service("forker").ok()
    daemon.stop_service("forker").ok()
    assert daemon.service_processes() == []


def test_environment_directory_and_gpu(make_daemon, tmp_path):
    port = lib.free_port()
    script = (
        f'echo "dir=$PWD gpu=$CUDA_VISIBLE_DEVICES colour=$COLOUR sim=$GPUMGR_SIM_DIR"; '
        f"exec {SIMSVC} --port={port} --vram=4000"
    )
    process = {"environment": {"COLOUR": "light blue"}, "directory": str(tmp_path)}
    daemon = make_daemon({"a": lib.shell_service(script, port=port, process=process)})
    daemon.start_service("a").ok()
    log = daemon.service_log("a")
    assert f"dir={tmp_path} gpu=GPU-sim-0 colour=light blue sim={daemon.sim_dir}" in log
    stdin = os.readlink(f"/proc/{daemon.service('a')['pid']}/fd/0")
    assert stdin == "/dev/null"


def test_no_descriptor_is_inherited(make_daemon):
    port = lib.free_port()
    script = f"ls -l /proc/self/fd | sed 's/^/fd: /'; exec {SIMSVC} --port={port} --vram=4000"
    daemon = make_daemon({"a": lib.shell_service(script, port=port)})
    daemon.start_service("a").ok()
    fds = [line for line in daemon.service_log("a").splitlines() if line.startswith("fd: ") and "->" in line]
    targets = [line.split(" -> ")[1] for line in fds]
    assert len(targets) >= 3
    assert not [t for t in targets if t.startswith(("socket:", "anon_inode:")) or str(daemon.socket) in t], targets


def test_a_command_for_the_shell(make_daemon):
    port = lib.free_port()
    service = lib.sim_service(4000, 50, port=port)
    service["process"]["command"] = f"{SIMSVC} --port={port} --vram=$((2000 * 2)) # a comment"
    service["process"]["shell"] = True
    daemon = make_daemon({"a": service})
    daemon.start_service("a").ok()
    assert daemon.sim_total() == 4000
    daemon.stop_service("a").ok()
    assert daemon.service_processes() == []


def test_the_user_of_a_service(make_daemon):
    """Root can become anybody; everybody can stay who they are."""
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    service = lib.sim_service(4000, 50, process={"user": account.pw_name})
    daemon = make_daemon({"a": service}, start=False)
    os.chmod(daemon.root, 0o755)
    (daemon.sim_dir / "0").mkdir(exist_ok=True)
    os.chmod(daemon.sim_dir, 0o777)
    os.chmod(daemon.sim_dir / "0", 0o777)
    daemon.start()
    daemon.start_service("a").ok()
    status = Path(f"/proc/{daemon.service('a')['pid']}/status").read_text()
    assert "Uid:" + f"\t{account.pw_uid}" * 4 in status
    groups = next(line for line in status.splitlines() if line.startswith("Groups:"))
    assert "0" not in groups.split()[1:]


def test_a_user_that_one_may_not_become(make_daemon):
    service = lib.sim_service(4000, 50, process={"user": "root"})
    daemon = make_daemon({"a": service})
    answer = daemon.start_service("a")
    if os.getuid() == 0:
        answer.ok()
    else:
        assert "root" in answer.problem(500, "start_failed")["detail"]


# --- starts that fail ----------------------------------------------------------------------------------------------


def test_exit_while_starting_fails_at_once(make_daemon):
    script = "echo loading the model; echo 'CUDA error: no kernel image' >&2; exit 3"
    daemon = make_daemon({"bad": lib.shell_service(script, timeout="30s")})
    began = time.monotonic()
    problem = daemon.start_service("bad").problem(500, "start_failed")
    assert time.monotonic() - began < 2 * SLOWNESS
    for words in ("bad", "3", "CUDA error: no kernel image"):
        assert words in problem["detail"], problem
    [step] = problem["steps"]
    assert step["state"] == "failed" and step["error"]
    ended_state(daemon, "bad", ["3"])
    assert daemon.gpu()["committed_mb"] == 0
    assert "loading the model" in daemon.service_log("bad")


def test_a_signal_while_starting(make_daemon):
    daemon = make_daemon({"bad": lib.shell_service("kill -SEGV $$", timeout="30s")})
    problem = daemon.start_service("bad").problem(500, "start_failed")
    assert "SIGSEGV" in problem["detail"] or "signal 11" in problem["detail"], problem


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nonexistent/program", "/nonexistent/program"),
        ("/etc/passwd", "/etc/passwd"),
        ("/etc", "/etc"),
        ("no-such-program-anywhere", "no-such-program-anywhere"),
    ],
)
def test_a_command_that_cannot_run(make_daemon, path, words):
    service = lib.sim_service(4000, 50)
    service["process"]["command"] = [path, "--flag"]
    daemon = make_daemon({"bad": service})
    problem = daemon.start_service("bad").problem(500, "start_failed")
    assert words in problem["detail"]
    ended_state(daemon, "bad", [words])
    assert daemon.gpu()["committed_mb"] == 0


def test_a_directory_or_user_that_is_not_there(make_daemon):
    services = {
        "dir": lib.sim_service(4000, 50, process={"directory": "/nonexistent/folder"}),
        "user": lib.sim_service(4000, 50, process={"user": "nosuchuserhere"}),
    }
    daemon = make_daemon(services)
    assert "/nonexistent/folder" in daemon.start_service("dir").problem(500, "start_failed")["detail"]
    assert "nosuchuserhere" in daemon.start_service("user").problem(500, "start_failed")["detail"]


def test_a_start_that_works_the_second_time(make_daemon, tmp_path):
    port = lib.free_port()
    script = f"if [ ! -e {tmp_path}/once ]; then touch {tmp_path}/once; exit 1; fi; exec {SIMSVC} --port={port} --vram=4000"
    daemon = make_daemon({"moody": lib.shell_service(script, port=port)})
    daemon.start_service("moody").problem(500, "start_failed")
    daemon.start_service("moody").ok()
    service = daemon.service("moody")
    assert service["state"] == "ready" and service["error"] is None


@pytest.mark.parametrize(
    "option",
    ["--never-healthy", "--hang-health", "--redirect-health", "--rubbish-health"],
)
def test_health_that_never_comes(make_daemon, option):
    services = {
        "sick": lib.sim_service(4000, 50, option, timeout="0.7s"),
        "sound": lib.sim_service(4000, 50),
    }
    daemon = make_daemon(services)
    began = time.monotonic()
    problem = daemon.start_service("sick").problem(504, "start_timeout")
    assert 0.6 < time.monotonic() - began < 3 * SLOWNESS
    assert "sick" in problem["detail"]
    assert "/health" in problem["detail"] or "health" in problem["detail"]
    # What never became healthy is ended: its memory is worth more.
    eventually(lambda: daemon.service_processes() == [], "its process is ended")
    eventually(lambda: daemon.gpu()["committed_mb"] == 0, "its room is free again")
    assert daemon.state("sick") == "error" and daemon.service("sick")["error"]
    daemon.start_service("sound").ok()


def test_a_health_check_that_hangs_holds_up_nobody(make_daemon):
    services = {
        "mute": lib.sim_service(4000, 50, "--hang-health", timeout="3s"),
        "other": lib.sim_service(4000, 50),
    }
    daemon = make_daemon(services)
    number = daemon.start_service("mute", **{"async": 1}).ok(202)["id"]
    times, asked = [], time.monotonic()
    while daemon.transition(number)["state"] == "running":
        began = time.monotonic()
        daemon.status()
        times.append(time.monotonic() - began)
        time.sleep(0.01)
    assert daemon.transition(number)["state"] == "failed"
    # Now and then the machine itself holds somebody up; the check hangs all the time.
    assert sum(took for took in times if took > 0.25) < (time.monotonic() - asked) / 2, times
    daemon.start_service("other").ok()


def test_an_answer_without_an_end_harms_nobody(make_daemon):
    """Its status is good; what follows is cut off."""
    service = lib.sim_service(4000, 50, "--endless-health")
    service["health"].update({"interval": "0.1s", "retries": 2})
    daemon = make_daemon({"talker": service})
    daemon.start_service("talker").ok()
    time.sleep(0.5)
    assert daemon.state("talker") == "ready"
    memory = next(line for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines() if "RssAnon" in line)
    most = 32 * 1024 if "asan" not in lib.BUILD_DIR.name else 400 * 1024  # kB; sanitizers keep for a while what was freed
    assert int(memory.split()[1]) < most, memory
    daemon.stop_service("talker").ok()


def test_a_slow_boot_is_no_failure(make_daemon):
    daemon = make_daemon({"slow": lib.sim_service(4000, 50, "--boot=1.2", "--boot-refuse", timeout="10s")})
    body = daemon.start_service("slow").ok()
    assert 1150 <= body["duration_ms"] < 1200 + 800 * SLOWNESS


def test_a_failed_phase_says_what_did_happen(make_daemon):
    services = {
        "old": lib.sim_service(20000, 10),
        "good": lib.sim_service(10000, 50),
        "bad": lib.shell_service("exit 9", 10000, 50),
    }
    daemon = make_daemon(services, {1: {"services": ["good", "bad"]}})
    daemon.start_service("old").ok()
    problem = daemon.phase(1).problem(500, "start_failed")
    states = {(s["action"], s["service"]): s["state"] for s in problem["steps"]}
    assert states == {("stop", "old"): "done", ("start", "good"): "done", ("start", "bad"): "failed"}
    assert "bad" in problem["detail"] and problem["phase"] == 1
    # There is no rollback.
    assert daemon.state("good") == "ready" and daemon.state("old") == "stopped"
    assert daemon.state("bad") == "error"


# --- after the start -------------------------------------------------------------------------------------------------


def test_a_crash_is_noticed_at_once(make_daemon):
    services = {"frail": lib.sim_service(4000, 50, "--exit-code=7", "--log-lines=3")}
    daemon = make_daemon(services)
    daemon.start_service("frail").ok()
    with daemon.events() as events:
        began = time.monotonic()
        lib.visit(services["frail"], "/crash")
        events.until(lambda e: e.get("event") == "service.state" and e["data"]["data"]["to"] == "error")
        assert time.monotonic() - began < 1 * SLOWNESS
    service = ended_state(daemon, "frail", ["exited with status 1"])
    assert service["pid"] is None
    eventually(lambda: daemon.service("frail")["live"] is False, "its memory is back")
    eventually(lambda: daemon.gpu()["committed_mb"] == 0, "its room is free")
    daemon.start_service("frail").ok()
    assert daemon.service("frail")["error"] is None


def test_a_kill_from_outside_is_noticed(make_daemon):
    daemon = make_daemon({"a": lib.sim_service(4000, 50)})
    daemon.start_service("a").ok()
    os.kill(daemon.service("a")["pid"], signal.SIGKILL)
    service = ended_state(daemon, "a", [])
    assert "SIGKILL" in service["error"] or "signal 9" in service["error"], service


def test_the_last_lines_stand_in_the_error(make_daemon):
    port = lib.free_port()
    script = f"{SIMSVC} --port={port} --vram=4000; echo famous last words; exit 5"
    services = {"a": lib.shell_service(script, port=port)}
    daemon = make_daemon(services)
    daemon.start_service("a").ok()
    lib.visit(services["a"], "/crash")
    ended_state(daemon, "a", ["5", "famous last words"])


def test_unhealthy_and_healthy_again(make_daemon):
    service = lib.sim_service(4000, 50)
    service["health"].update({"interval": "0.1s", "retries": 2})
    daemon = make_daemon({"a": service})
    daemon.start_service("a").ok()
    pid = daemon.service("a")["pid"]
    assert lib.visit(service, "/unhealthy") == 200
    eventually(lambda: daemon.state("a") == "error", "the failed health checks count", 3)
    assert daemon.service("a")["live"] is True and is_alive(pid)
    # It still holds its memory.
    assert daemon.gpu()["committed_mb"] == 4000
    assert lib.visit(service, "/healthy") == 200
    eventually(lambda: daemon.state("a") == "ready", "it is ready again", 3)
    assert daemon.service("a")["pid"] == pid and daemon.service("a")["error"] is None


def test_what_is_broken_is_evicted_first(make_daemon):
    sick = lib.sim_service(10000, 60)
    sick["health"].update({"interval": "0.1s", "retries": 1})
    services = {"sick": sick, "sound": lib.sim_service(10000, 10), "x": lib.sim_service(10000, 100)}
    daemon = make_daemon(services)
    daemon.start_service("sick").ok()
    daemon.start_service("sound").ok()
    lib.visit(sick, "/unhealthy")
    eventually(lambda: daemon.state("sick") == "error", "it is sick", 3)
    body = daemon.start_service("x").ok()
    assert lib.actions(body["steps"]) == [("stop", "sick"), ("start", "x")]
    assert body["steps"][0]["reason"] == "broken"
    assert daemon.ready() == {"sound", "x"}


def test_a_broken_service_is_started_anew(make_daemon):
    sick = lib.sim_service(10000, 60)
    sick["health"].update({"interval": "0.1s", "retries": 1})
    daemon = make_daemon({"sick": sick})
    daemon.start_service("sick").ok()
    pid = daemon.service("sick")["pid"]
    lib.visit(sick, "/unhealthy")
    eventually(lambda: daemon.state("sick") == "error", "it is sick", 3)
    body = daemon.start_service("sick").ok()
    assert lib.actions(body["steps"]) == [("stop", "sick"), ("start", "sick")]
    assert daemon.service("sick")["pid"] != pid and not is_alive(pid)


def test_a_leak_shows_in_the_commitment(make_daemon):
    daemon = make_daemon({"leaky": lib.sim_service(4000, 50, "--leak=500")})
    daemon.start_service("leaky").ok()
    eventually(lambda: daemon.service("leaky")["committed_mb"] > 4000, "the commitment follows the readings", 8)


def test_health_over_tcp_and_by_command(make_daemon, tmp_path):
    port, other = lib.free_port(), lib.free_port()
    tcp = lib.sim_service(4000, 50, port=port)
    tcp["health"] = {"tcp": f"127.0.0.1:{port}", "timeout": "10s"}
    marker = tmp_path / "ready"
    command = lib.sim_service(4000, 50, port=other)
    command["process"]["command"] = ["/bin/sh", "-c", f"sleep 0.3; touch {marker}; exec sleep 600"]
    command["health"] = {"command": ["test", "-e", str(marker)], "timeout": "10s"}
    daemon = make_daemon({"tcp": tcp, "command": command})
    daemon.start_service("tcp").ok()
    body = daemon.start_service("command").ok()
    assert body["duration_ms"] >= 300
    assert daemon.ready() == {"tcp", "command"}


def test_a_service_that_overfills_the_card_fails_as_a_real_one_would(make_daemon):
    """Its own allocation fails, it says so, and gpumgr passes that on."""
    service = lib.sim_service(30000, 50)
    service["vram"] = "4000MiB"
    daemon = make_daemon({"liar": service})
    problem = daemon.start_service("liar").problem(500, "start_failed")
    assert "memory" in problem["detail"].lower(), problem
    assert daemon.sim_total() == 0


def test_two_services_on_one_port(make_daemon):
    port = lib.free_port()
    services = {"a": lib.sim_service(4000, 50, port=port), "b": lib.sim_service(4000, 50, port=port)}
    daemon = make_daemon(services, start=False)
    daemon.start()
    daemon.start_service("a").ok()
    # b's process finds its port taken and ends; the health of a is not taken for b's, or not for long.
    answer = daemon.start_service("b")
    if answer.status != 200:
        answer.problem(500, "start_failed")
    eventually(lambda: daemon.state("b") == "error", "b does not run")
    assert daemon.state("a") == "ready"
    assert port_is_free(port) is False


def test_lots_of_output(make_daemon):
    service = lib.sim_service(4000, 50)
    port = lib.service_port(service)
    service["process"]["command"] = [
        "/bin/sh",
        "-c",
        f"yes 'a line of forty characters or thereabouts' | head -c 3000000; exec {SIMSVC} --port={port} --vram=4000",
    ]
    service["process"]["log_size"] = "1MiB"
    # The limit is checked while the service runs.
    service["health"]["interval"] = "0.1s"
    daemon = make_daemon({"chatty": service})
    daemon.start_service("chatty").ok()
    folder = daemon.state_dir / "log"
    daemon.restart_service("chatty").ok()
    daemon.stop_service("chatty").ok()
    assert (folder / "chatty.log.1").exists()
    assert sum(path.stat().st_size for path in folder.glob("chatty.log*")) < 7 << 20
    assert "ready" in daemon.get("/gpu/service/chatty/logs?tail=1").text


def test_a_service_may_open_as_many_files_as_the_daemon_was_started_with(make_daemon):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    port = lib.free_port()
    script = f"ulimit -Sn; exec {lib.SIMSVC} --port={port}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, hard))
    try:
        daemon = make_daemon({"frugal": lib.shell_service(script, port=port)})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    daemon.start_service("frugal").ok()
    assert daemon.service_log("frugal").splitlines()[0] == "700"


def test_the_pid_of_a_forking_service_is_the_one_in_the_background(make_daemon, tmp_path):
    pid_file = tmp_path / "service.pid"
    service = lib.sim_service(
        4000, 50, "--fork", f"--pid-file={pid_file}", process={"type": "forking", "pid_file": str(pid_file)}
    )
    daemon = make_daemon({"daemon": service})
    daemon.start_service("daemon").ok()
    eventually(lambda: daemon.service("daemon")["pid"] == int(pid_file.read_text()), "the PID is that of the daemon")


@pytest.mark.parametrize(
    "option, words", [("--redirect-health", "redirect"), ("--never-healthy", "status 503"), ("--boot=30", "status 503")]
)
def test_a_start_that_times_out_tells_the_last_answer(make_daemon, option, words):
    daemon = make_daemon({"odd": lib.sim_service(4000, 50, option, timeout=f"{0.5 * SLOWNESS}s")})
    problem = daemon.start_service("odd").problem(504, "start_timeout")
    assert "last check: " in problem["detail"] and words in problem["detail"], problem["detail"]
