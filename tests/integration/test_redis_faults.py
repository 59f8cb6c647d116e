"""Redis that hangs, dies, forgets, refuses, lies, or is none: what the lock says, and that it recovers by itself."""

import os
import subprocess
import threading
import time

import pytest

import gpumgr_testlib as lib
from false_redis import FalseRedis, bulk, forever, polite, slowly
from redis_server import RedisError, ms, record, seconds

KEY = "gpu_mutex_v2"
SECRET = "s3cret%/x"
SECRET_IN_URL = "s3cret%25%2Fx"

# --- a server that comes and goes ------------------------------------------------------------------------------------


def held(probe, since=0):
    probe.want("comfyui")
    return probe.news("held", since=since)


def test_a_short_hang_loses_nothing(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(3000), knows=redis)
    held(probe)
    since = probe.mark()
    redis.hang()
    time.sleep(1.5)
    redis.resume()
    assert isinstance(probe.fence(1), int)
    assert isinstance(probe.fence(2), int)
    time.sleep(0.5)
    assert not probe.said("news", since)


def test_a_long_hang_loses_the_lock_in_time(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(3000), knows=redis)  # a tenth of it is what a busy machine may take
    held(probe)
    first = probe.fence(1)
    since = probe.mark()
    begin = time.monotonic()
    redis.hang()
    lost = probe.news("lost", since=since, timeout=6)
    assert lost.at - begin < seconds(3.0), "nobody else can have it before we know"
    text = probe.news("unavailable", since=since, timeout=3).text
    assert str(redis.port) in text
    assert probe.state()[0] == "unavailable"
    redis.resume()
    probe.news("held", since=since, timeout=4)
    assert probe.fence(2) > first


def test_a_wish_is_answered_even_when_nobody_answers(make_redis, make_probe):
    redis = make_redis()
    redis.hang()
    probe = make_probe(redis.url, ttl_ms=30000)
    probe.unwant()
    begin = time.monotonic()
    probe.want()
    assert probe.news("unavailable", timeout=4).at - begin < 3 * lib.SLOWNESS
    assert probe.force(timeout=4)[0] is False


def test_a_fence_is_answered_even_when_nobody_answers(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=20000, knows=redis)
    held(probe)
    since = probe.mark()
    probe.fence(1)
    redis.hang()
    begin = time.monotonic()
    text = probe.fence(2, timeout=4)
    assert isinstance(text, str) and str(redis.port) in text
    assert time.monotonic() - begin < 3 * lib.SLOWNESS
    assert probe.state()[0] == "ours"
    redis.resume()
    lib.eventually(lambda: isinstance(probe.fence(3), int), "fences again", timeout=4)
    assert not probe.said("news", since)


def test_a_restart_with_its_data(make_redis, make_probe):
    redis = make_redis(data=True)
    probe = make_probe(redis.url, ttl_ms=ms(3000), knows=redis)
    held(probe)
    value, since = redis("GET", KEY), probe.mark()
    redis.restart()
    fence = probe.fence(1)
    lib.eventually(lambda: isinstance(probe.fence(2), int), "fences again", timeout=4)
    assert fence is not None and redis("GET", KEY) == value
    time.sleep(1)
    assert not probe.said("news", since), "it is still ours, and was all the time"


def test_a_restart_without_its_data_is_repaired_by_the_holder(make_redis, make_probe):
    redis = make_redis()
    one = make_probe(redis.url, ttl_ms=ms(3000), knows=redis)
    two = make_probe(redis.url, ttl_ms=ms(3000), knows=redis)
    held(one)
    first = one.fence(1)
    value, since = redis("GET", KEY), one.mark()
    two.want("vidi")
    two.news("foreign")
    redis.restart()
    lib.eventually(lambda: redis("GET", KEY) == value, "the holder puts its key back", timeout=2)
    second = one.fence(2)
    assert second > first, "the counter was lost, and they still grow"
    time.sleep(0.5)
    assert not one.said("news", since) or one.said("news", since)[0].words[1] == "yielding"
    assert not two.said("news held")
    one.unwant()
    two.news("held", timeout=8)
    assert two.fence(1) > second


def test_after_a_restart_nobody_takes_it_before_the_time_limit(make_redis, make_probe):
    """The holder may still rely on it, though its server forgot it, and though it cannot be reached."""
    redis = make_redis()
    one = make_probe(redis.url, ttl_ms=ms(1500), knows=redis)
    two = make_probe(redis.url, ttl_ms=ms(1500), knows=redis)
    held(one)
    two.want("vidi")
    two.news("foreign")
    one.hang()
    redis.stop()
    begin = time.monotonic()
    redis.start()
    new = make_probe(redis.url, ttl_ms=ms(1500))  # it never knew the old one
    new.want("cosyvoice")
    for probe in (two, new):
        probe.unavailable("lock.ttl")  # that is what it waits for
    first = lib.eventually(lambda: [p for p in (two, new) if p.said("news held")], "one of them takes it", timeout=4)
    assert len(first) == 1 and first[0].said("news held")[0].at - begin >= seconds(1.5)
    since = one.mark()
    one.resume()
    one.send("fence 7")
    one.news("lost", since=since, timeout=2)
    one.wait("no_fence 7", timeout=4)
    assert not one.said("fence 7"), "it was stopped for too long"


def test_a_server_counts_whole_seconds(make_redis, make_probe):
    """One that was started just before a full second of the clock says just after it that it runs for one."""
    redis = make_redis()
    redis.stop()
    time.sleep((0.93 - time.time()) % 1)
    begin = time.monotonic()
    redis.start()
    time.sleep(0.1)
    probe = make_probe(redis.url, ttl_ms=ms(1500))
    probe.want()
    assert probe.news("held", timeout=4).at - begin >= seconds(1.5)


def test_deleted_by_hand_is_not_put_back(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(900), knows=redis)
    held(probe)
    value, since = redis("GET", KEY), probe.mark()
    redis("DEL", KEY)
    lost = probe.news("lost", since=since, timeout=3)
    probe.news("held", since=probe.lines.index(lost))
    assert redis("GET", KEY) not in (None, value)


def test_a_daemon_that_was_stopped_grants_nothing(make_redis, make_probe):
    redis = make_redis()
    one = make_probe(redis.url, ttl_ms=ms(700), knows=redis)
    two = make_probe(redis.url, ttl_ms=ms(700), knows=redis)
    for turn in range(3):
        since_one, since_two = one.mark(), two.mark()
        held(one, since=since_one)
        one.fence(turn)
        two.want()
        two.news("foreign", since=since_two)
        one.hang()
        one.send(f"fence {100 + turn}")  # it lies in its pipe when it wakes up
        taken = two.news("held", since=since_two)
        fence = two.fence(turn)
        one.resume()
        one.wait(f"no_fence {100 + turn}", timeout=4)
        lost = one.news("lost", since=since_one + (1 if turn == 0 else 0))
        assert lost.at > taken.at
        two.unwant()
        one.news("held", since=one.lines.index(lost), timeout=3)
        assert one.fence(200 + turn) > fence
        one.unwant()


def test_the_fence_that_came_with_the_lock_grows_old(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(600), knows=redis)
    held(probe)
    probe.hang()
    probe.send("fence 1")
    time.sleep(seconds(0.8))
    probe.resume()
    probe.wait("no_fence 1", timeout=4)
    assert not probe.said("fence 1")


def test_an_answer_that_was_read_too_late(make_probe):
    """Stopped with its question under way: the answer lies in the socket when it wakes up, and says nothing any more."""
    probes = []

    def answer(words):
        job, mine = words[7:9]
        values = [b"held", mine.encode(), 900, 0, str(time.time_ns() // 1000).encode(), b"", b"0"]
        if job == "renew" and words[13] != "0":
            probes[0].hang()
            threading.Timer(1.2, probes[0].resume).start()
        elif job == "renew":
            values[4] = b""
        elif job != "acquire":
            values = [b"done", b"", -2, 0, b"", b"", b"0"]
        parts = [b":%d\r\n" % value if isinstance(value, int) else bulk(value) for value in values]
        return b"*7\r\n" + b"".join(parts)

    server = FalseRedis(lambda words: polite(words, answer))
    try:
        probes.append(make_probe(server.url, ttl_ms=1000))
        held(probes[0])
        since = probes[0].mark()
        assert isinstance(probes[0].fence(1), int)
        assert isinstance(probes[0].fence(2), str)
        probes[0].news("lost", since=since)
    finally:
        server.close()


def test_more_answers_than_questions(make_probe):
    answer = b"*7\r\n" + bulk("done") + bulk("") + b":-2\r\n:0\r\n" + bulk("") + bulk("") + bulk("0")
    server = FalseRedis(lambda words: polite(words, answer * 2))
    try:
        probe = make_probe(server.url, ttl_ms=1000)
        probe.unwant()
        lib.eventually(lambda: "not asked for" in probe.state()[3], "it is not believed", timeout=3)
    finally:
        server.close()


def test_a_fence_that_was_given_before_is_none(make_probe):
    """A server that forgets, or was never one: each fence once, whatever it says."""

    given = []

    def answer(words):
        job, mine, floor, n_fences = words[7], words[8], int(words[12]), words[13]
        given.append(str(given[0] if given else floor + 10))
        fence = given[0] if job == "acquire" or n_fences != "0" else ""
        return b"*7\r\n" + bulk("held") + bulk(mine) + b":1000\r\n:0\r\n" + bulk(fence) + bulk("") + bulk(given[0])

    server = FalseRedis(lambda words: polite(words, answer))
    try:
        probe = make_probe(server.url, ttl_ms=ms(1000))
        probe.unwant()
        probe.want()
        probe.news("held")
        assert probe.fence(1) == int(given[0]), "the one that came along with the lock"
        probe.send("fence 2")
        probe.wait("no_fence 2", timeout=4)
        assert not probe.said("fence 2 ")
    finally:
        server.close()


def test_many_sentinels_that_hang(make_redis, make_probe):
    """One after the other would take for ever; the wish is answered all the same."""
    redis = make_redis()
    redis.hang()
    places = ",".join([f"127.0.0.1:{redis.port}"] * 8)
    probe = make_probe(f"redis+sentinel://{places}/mymaster", ttl_ms=30000)
    probe.unwant()
    begin = time.monotonic()
    probe.want()
    assert probe.news("unavailable", timeout=4).at - begin < 3 * lib.SLOWNESS


def test_a_loop_that_was_blocked_grants_nothing(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(500), knows=redis)
    held(probe)
    probe.fence(1)
    since = probe.mark()
    probe.process.stdin.write(f"fence 2\nwork {ms(700)}\nfence 3\n")
    probe.process.stdin.flush()
    probe.wait("no_fence 3", timeout=4)
    assert not [line for line in probe.said("fence", since) if line.words[1] == "3"]
    assert probe.said("news lost", since)


def test_a_restart_of_both(make_redis, make_probe):
    """The daemon and the server: what it believes is on record, and the key goes back."""
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(3000), knows=redis)
    held(probe)
    value = redis("GET", KEY)
    probe.kill()
    redis.restart()
    since = probe.mark()
    probe.start()
    held(probe, since)
    assert not probe.said("news lost", since)
    assert redis("GET", KEY) == value


def test_scripts_are_forgotten(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, knows=redis)
    held(probe)
    since = probe.mark()
    probe.fence(1)
    for i in range(2, 5):
        redis("SCRIPT", "FLUSH")
        assert isinstance(probe.fence(i), int)
    assert not probe.said("news", since)


# --- a server that refuses -------------------------------------------------------------------------------------------


def refused(probe, *words):
    """The text says it, names the server, and holds no secret."""
    probe.unwant()
    probe.want()
    text = probe.unavailable(*words, timeout=4)

    def is_told():
        state, _, _, problem = probe.state()
        return state == "unavailable" and problem in text

    lib.eventually(is_told, "the status says it, too")
    return text


def test_passwords(make_redis, make_probe):
    redis = make_redis("--requirepass", SECRET)
    address = f"127.0.0.1:{redis.port}"
    refused(make_probe(redis.url), "asks for a password", address)
    refused(make_probe(f"redis://:wrong@{address}"), "does not accept")
    right = make_probe(f"redis://:{SECRET_IN_URL}@{address}")
    held(right)
    right.fence(1)
    for probe in [right]:
        said = "\n".join(line.text for line in probe.lines) + probe.log()
        assert SECRET not in said and SECRET_IN_URL not in said
        assert SECRET not in (probe.folder / "lock.redis").read_text()


def test_a_password_that_nobody_asked_for(make_redis, make_probe):
    redis = make_redis()
    text = refused(make_probe(f"redis://:{SECRET_IN_URL}@127.0.0.1:{redis.port}"), "has no password", "take it out")
    assert SECRET not in text


def test_a_user_without_a_password(make_redis, make_probe):
    redis = make_redis()
    redis("ACL", "SETUSER", "worker", "on", "nopass", "~*", "&*", "+@all")
    redis("ACL", "SETUSER", "default", "resetkeys", "resetchannels", "+@all")
    one, two = (make_probe(f"redis://worker:@127.0.0.1:{redis.port}", knows=redis) for _ in range(2))
    held(one)
    two.want()
    two.news("foreign")
    lib.eventually(lambda: redis("CLIENT", "LIST").count("user=worker") == 4, "so it is when it listens", timeout=3)
    refused(make_probe(f"redis://nobody:@127.0.0.1:{redis.port}"), "does not accept the user")


def test_access_lists(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(f"redis://worker:{SECRET_IN_URL}@127.0.0.1:{redis.port}", ttl_ms=ms(600))
    refused(probe, "does not accept")
    redis("ACL", "SETUSER", "worker", "on", f">{SECRET}", f"~{KEY}", "+@all")
    what = "it says what is missing, and to whom"
    lib.eventually(lambda: all(word in probe.state()[3] for word in ("ACL SETUSER", "worker")), what, timeout=4)
    # As docs/locking.md says.
    documented = (lib.SOURCE_ROOT / "docs/locking.md").read_text()
    rule = next(line for line in documented.splitlines() if line.startswith("ACL SETUSER gpumgr "))
    words = rule.replace("gpumgr on", "worker on").replace("PASSWORD", SECRET).split()
    redis(*words[:3], "reset")
    redis(*words)
    redis("ACL", "LOG", "RESET")
    probe.news("held", timeout=5)
    probe.fence(1)
    assert isinstance(probe.fence(2), int)
    assert probe.log().count("NOPERM") == 0
    other = make_probe(probe.url, ttl_ms=ms(600))
    other.want()
    other.news("foreign", timeout=5)
    probe.unwant()
    other.news("held", timeout=3)
    assert redis("ACL", "LOG") == [], "it may do all that it tries, listening and telling included"


def test_a_replica(make_redis, make_probe):
    master = make_redis()
    replica = make_redis("--replicaof", f"127.0.0.1 {master.port}")
    probe = make_probe(replica.url, ttl_ms=ms(600))
    refused(probe, "read-only replica", str(replica.port), "redis+sentinel://")
    replica("REPLICAOF", "NO", "ONE")
    probe.news("held", timeout=6)


def test_a_master_that_becomes_a_replica(make_redis, make_probe):
    master, other = make_redis(), make_redis()
    probe = make_probe(master.url, ttl_ms=ms(1000), knows=master)
    held(probe)
    since = probe.mark()
    master("REPLICAOF", "127.0.0.1", other.port)
    probe.news("lost", since=since, timeout=3)
    probe.unavailable("replica", since=since, timeout=3)


def test_out_of_memory(make_redis, make_probe):
    redis = make_redis("--maxmemory-policy", "noeviction")
    probe = make_probe(redis.url, ttl_ms=ms(1000), knows=redis)
    held(probe)
    since = probe.mark()
    redis("CONFIG", "SET", "maxmemory", "1")
    time.sleep(seconds(1.3))
    assert not probe.said("news", since), "what it has it keeps: renewing takes no memory"
    probe.unwant()
    lib.eventually(lambda: redis("GET", KEY) is None, "it is given back", timeout=2)
    probe.want()
    probe.unavailable("maxmemory", since=since)
    redis("CONFIG", "SET", "maxmemory", "0")
    probe.news("held", since=since, timeout=2)


def test_a_disk_that_is_full_behind_redis(make_redis, make_probe):
    redis = make_redis("--enable-protected-configs", "yes")
    redis("CONFIG", "SET", "dir", "/proc")
    redis("CONFIG", "SET", "save", "3600 1")
    redis("BGSAVE")
    lib.eventually(lambda: "rdb_last_bgsave_status:err" in redis("INFO", "persistence"), "it cannot save")
    probe = make_probe(redis.url, ttl_ms=ms(600), knows=redis)
    refused(probe, "save its data")
    redis("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
    probe.news("held", timeout=3)
    redis("CONFIG", "SET", "dir", str(redis.folder))


def test_a_server_that_is_busy(make_redis, make_probe):
    redis = make_redis("--busy-reply-threshold", "10")
    probe = make_probe(redis.url, ttl_ms=ms(600), knows=redis)
    client = redis.client()
    client.socket.sendall(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n")
    lib.eventually(lambda: is_busy(redis), "it is busy")
    refused(probe, "SCRIPT KILL")
    redis("SCRIPT", "KILL")
    client.close()
    probe.news("held", timeout=5)


def is_busy(redis):
    try:
        redis("PING")
    except RedisError as error:
        return "BUSY" in str(error)
    return False


def test_no_room_for_the_record(make_redis, make_probe):
    """Without it a kill -9 would leave a lock that nobody knows to be his own: so it is not taken."""
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(600), knows=redis)
    probe.unwant()
    lib.eventually(lambda: probe.state()[0] == "free", "it is connected")
    (probe.folder / "lock.redis.new").mkdir()
    probe.want()
    probe.unavailable("lock.redis")
    assert redis("GET", KEY) is None
    (probe.folder / "lock.redis.new").rmdir()
    probe.news("held", timeout=2)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a file system of its own, and that needs root")
def test_a_restart_on_a_full_disk(make_redis, make_probe, tmp_path):
    """All goes on: lock.redis has its room, and nothing else that the lock needs is a reason not to start."""
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=30000, knows=redis)
    held(probe)
    fence = probe.fence(1)
    probe.kill()
    copy, folder = "cp -a --sparse=never", probe.folder
    fill = f"{copy} {folder}/. {tmp_path} && mount -t tmpfs -o size=4m tmpfs {folder} && {copy} {tmp_path}/. {folder}"
    script = f'{fill} && ! cat /dev/zero > {folder}/ballast && exec "$@"'
    probe.prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    since = probe.mark()
    probe.start()
    held(probe, since)
    assert not probe.said("news lost", since)
    assert "disk is full" in probe.log()
    assert probe.fence(2) > fence
    assert "lock.redis" not in probe.log()
    assert redis("PTTL", KEY) > 20000


def test_addresses_where_nobody_is(make_probe, tmp_path):
    port = lib.free_port()
    probes = {
        f"redis://127.0.0.1:{port}": "connection refused",
        f"redis://[::1]:{port}": "",
        f"unix://{tmp_path}/none.sock": "no such socket",
        f"redis+sentinel://127.0.0.1:{port}/mymaster": "Sentinel at 127.0.0.1",
        "redis://no-such-host.invalid": "cannot be resolved",
    }
    started = [(make_probe(url), words) for url, words in probes.items()]
    for probe, words in started:
        probe.unwant()
        probe.want()
    for probe, words in started:
        probe.unavailable(words, timeout=6)


def test_what_cannot_be_used_is_refused_at_the_start(make_probe):
    for url, words in {
        "redis://user@host": "PASSWORD",
        "redis://:p%zz@host": "%25",
        "unix:///" + "x" * 200: "longer",
    }.items():
        probe = make_probe(url)
        assert words in probe.wait("failed").text
        assert probe.process.wait(5 * lib.SLOWNESS) == 1


# --- no server at all ------------------------------------------------------------------------------------------------

ANSWER = b"*7\r\n" + bulk("held") + bulk("x") + b":900\r\n:0\r\n" + bulk("5") + bulk("d" * 40) + bulk("5")



def said(words, word="held", value=None, fence=None):
    """What a run of the script answers; without more it gives who asks the lock."""
    value = words[8] if value is None else value
    fence = str(time.time_ns() // 1000) if fence is None else fence
    return b"*7\r\n" + bulk(word) + bulk(value) + b":900\r\n:0\r\n" + bulk(fence) + bulk("") + bulk(fence)


RUBBISH = {
    "closes": lambda words: None,
    "http": lambda words: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "noise": lambda words: bytes(range(255, 0, -1)) * 20,
    "half": lambda words: slowly(b"$500\r\nrun_id", 0),
    "twice": lambda words: b"+OK\r\n+OK\r\n+OK\r\n",
    "large": lambda words: forever(b"$400000000\r\n" + b"x" * 65536),
    "endless": lambda words: forever(b"x" * 65536),
    "many": lambda words: b"*2000000000\r\n:1\r\n",
    "negative": lambda words: b"*-5\r\n$-7\r\n",
    "deep": lambda words: b"*1\r\n" * 5000,
    "errors": lambda words: b"-ERR no\r\n",
    "loading": lambda words: b"-LOADING Redis is loading the dataset in memory\r\n",
    "moved": lambda words: polite(words, b"-MOVED 1234 10.0.0.1:6379\r\n"),
    "nil": lambda words: polite(words, b"$-1\r\n"),
    "number": lambda words: polite(words, b":1\r\n"),
    "short": lambda words: polite(words, b"*2\r\n" + bulk("held") + bulk("")),
    "strange word": lambda words: polite(words, ANSWER.replace(b"held", b"hell")),
    "strange fence": lambda words: polite(words, ANSWER.replace(bulk("5"), bulk("-5"))),
    "large fence": lambda words: polite(words, ANSWER.replace(bulk("5"), bulk("9" * 30))),
    "word of another job": lambda words: polite(words, lambda words: said(words, word="gone")),
    "held by another": lambda words: polite(words, lambda words: said(words, value="vidi:otherhost:0123456789abcdef")),
    "held by nobody": lambda words: polite(words, lambda words: said(words, value="")),
    "old fence": lambda words: polite(words, lambda words: said(words, fence="5")),
    "no fence": lambda words: polite(words, lambda words: said(words, fence="")),
    "unasked": lambda words: polite(words, b"+OK\r\n:1\r\n"),
    "silent": lambda words: b"",
    "slow": lambda words: slowly(polite(words, ANSWER), 0.05),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_rubbish(make_probe, kind):
    server = FalseRedis(RUBBISH[kind])
    try:
        probe = make_probe(server.url, ttl_ms=1000)
        probe.unwant()
        probe.want("comfyui")
        assert str(server.port) in probe.news("unavailable", timeout=5).text
        assert not probe.said("news held") and probe.process.poll() is None
        rss = int(next(x for x in open(f"/proc/{probe.process.pid}/status") if x.startswith("RssAnon")).split()[1])
        assert rss < 32 * 1024 or "asan" in str(lib.BUILD_DIR)
    finally:
        server.close()


def test_rubbish_before_anybody_asked(make_probe):
    server = FalseRedis(lambda words: b"", greeting=b"+HELLO\r\n-ERR x\r\n" * 10)
    try:
        probe = make_probe(server.url, ttl_ms=1000)
        probe.unwant()
        probe.want()
        assert str(server.port) in probe.news("unavailable").text
        time.sleep(0.5)
        assert probe.process.poll() is None
    finally:
        server.close()


REPEATS = {
    "whole": lambda secret: secret,
    "cut": lambda secret: secret[:-1],
    "escaped": lambda secret: secret.replace("/", "\\/"),
}


@pytest.mark.parametrize("repeat", REPEATS)
def test_a_server_that_repeats_the_password(make_probe, repeat):
    def rule(words):
        repeated = REPEATS[repeat](words[-1])
        return f"-ERR strange command `{words[0]}`, with args beginning with: `{repeated}`\r\n".encode()

    server = FalseRedis(rule)
    try:
        probe = make_probe(f"redis://:{SECRET_IN_URL}@127.0.0.1:{server.port}")
        probe.unwant()
        probe.want()
        probe.news("unavailable")
        assert REPEATS[repeat](SECRET) not in probe.lines[-1].text + probe.log()
    finally:
        server.close()


@pytest.mark.parametrize("answer", [b"-OOM command not allowed\r\n", b"-NOSCRIPT No matching script\r\n"])
def test_nothing_is_asked_too_often_of_a_server_that_refuses(make_probe, answer):
    server = FalseRedis(lambda words: polite(words, answer))
    try:
        probe = make_probe(server.url, ttl_ms=1000)
        begin = time.monotonic()
        probe.want()
        time.sleep(2)
        assert str(server.port) in probe.news("unavailable").text
        # Twice a second, and where the script is not known, once more with its text.
        asked = [words for words in server.commands if words[0].startswith("EVAL")]
        assert len(asked) < 6 * (time.monotonic() - begin)
    finally:
        server.close()


def test_nothing_is_asked_too_often_of_a_server_that_talks_nonsense(make_probe):
    server = FalseRedis(lambda words: polite(words, b"$-1\r\n"))
    try:
        probe = make_probe(server.url, ttl_ms=1000)
        begin = time.monotonic()
        probe.unwant()
        time.sleep(4)
        asked = [words for words in server.commands if words == ["INFO", "server"]]
        assert len(asked) < 2.5 * (time.monotonic() - begin)
    finally:
        server.close()


@pytest.mark.parametrize("answer", [b"$-1\r\n", b"-MOVED 1234 10.0.0.1:6379\r\n"])
def test_a_server_that_greets_and_then_fails_is_complained_of_once(make_probe, answer):
    failing = [True]
    looked = b"*7\r\n" + bulk("done") + bulk("") + b":-2\r\n:0\r\n" + bulk("") + bulk("") + bulk("0")
    server = FalseRedis(lambda words: polite(words, answer if failing else looked))
    try:
        probe = make_probe(server.url, ttl_ms=1000)
        probe.unwant()
        time.sleep(3)
        assert probe.log().count("warning lock:") == 1 and "reachable again" not in probe.log()
        failing.clear()
        lib.eventually(lambda: "reachable again" in probe.log(), "it says that it works", timeout=4)
    finally:
        server.close()


# --- a network that is cut -------------------------------------------------------------------------------------------


class Network:
    """Two network namespaces with a cable between them."""

    def __init__(self):
        self.tag = f"gl{os.getpid() % 100000}"
        self.names = [f"{self.tag}a", f"{self.tag}b"]

    def ip(self, *words, check=True):
        command = ["ip", *words]
        environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        return subprocess.run(command, check=check, capture_output=True, env=environment)

    def inside(self, index, *words):
        return ["ip", "netns", "exec", self.names[index], *words]

    def __enter__(self):
        try:
            self.lay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def lay(self):
        for name in self.names:
            self.ip("netns", "add", name)
        one, two = f"{self.tag}x", f"{self.tag}y"
        self.ip("link", "add", one, "type", "veth", "peer", "name", two)
        for index, link in enumerate((one, two)):
            self.ip("link", "set", link, "netns", self.names[index])
            self.ip("-n", self.names[index], "link", "set", "lo", "up")
            self.ip("-n", self.names[index], "addr", "add", f"10.99.0.{index + 1}/24", "dev", link)
            self.ip("-n", self.names[index], "link", "set", link, "up")

    def cut(self, is_cut):
        self.ip("-n", self.names[1], "link", "set", f"{self.tag}y", "down" if is_cut else "up")

    def __exit__(self, *exc):
        for name in self.names:
            self.ip("netns", "del", name, check=False)


@pytest.fixture
def network():
    if os.getuid() != 0:
        pytest.skip("makes network namespaces, and that needs root")
    with Network() as network:
        yield network


def test_a_cable_that_is_cut(network, make_redis, make_probe):
    """The host that is cut off knows that it lost the lock before the other one gets it."""
    redis = make_redis(
        "--protected-mode", "no", host="10.99.0.1", prefix=network.inside(0), start=False, unix=False
    )
    redis.start()
    ttl_ms = ms(3000)  # a tenth of it is what a busy machine may take
    near = make_probe(f"unix://{redis.path}", ttl_ms=ttl_ms, knows=redis)
    far = make_probe(redis.url, ttl_ms=ttl_ms, prefix=network.inside(1), knows=redis)
    far.want("vidi")
    far.news("held")
    since = far.mark()
    near.want("comfyui")
    near.news("foreign")
    network.cut(True)
    taken = near.news("held", timeout=6)
    lost = far.news("lost", since=since)
    assert lost.at < taken.at
    assert "10.99.0.1" in far.news("unavailable", since=since, timeout=4).text
    fence = near.fence(1)
    near.unwant()
    network.cut(False)
    again = far.news("held", since=far.lines.index(lost), timeout=8)
    assert again.at > taken.at and far.fence(1) > fence


def test_the_record_tells_what_is_believed(make_redis, make_probe):
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=3000, knows=redis)
    held(probe)
    said = record(probe.folder)
    assert said["value"] == redis("GET", KEY) and int(said["until"].split()[0]) > 0
    probe.unwant()
    lib.eventually(lambda: redis("GET", KEY) is None, "it is given back")
    assert record(probe.folder)["until"].startswith("0 ")
