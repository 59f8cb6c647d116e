"""The lock on a master that Sentinels watch: found, failed over, and never held twice."""

import time

import pytest

import gpumgr_testlib as lib
from redis_server import ms
from false_redis import FalseRedis, bulk

KEY = "gpu_mutex_v2"


class Group:
    """A master, a replica and two Sentinels."""

    def __init__(self, make_redis, *options, password=None):
        more = f"requirepass {password}\n" if password else ""
        self.password = password
        options = [*options, "--requirepass", password, "--masterauth", password] if password else options
        options = [*options, "--repl-diskless-sync-delay", "0"]
        self.master = make_redis(*options)
        self.replica = make_redis(*options, "--replicaof", f"127.0.0.1 {self.master.port}")
        self.master.password = self.replica.password = password
        lib.eventually(lambda: "master_link_status:up" in self.replica("INFO", "replication"), "it replicates", timeout=15)
        text = more + (
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1\n"
            f"sentinel down-after-milliseconds mymaster {ms(300)}\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        if password:
            text += f"sentinel auth-pass mymaster {password}\n"
        self.sentinels = [make_redis(sentinel=text, start=False) for _ in range(2)]
        for sentinel in self.sentinels:
            sentinel.password = password
            sentinel.start(wait=False)
        for sentinel in self.sentinels:
            lib.eventually(lambda s=sentinel: self.is_complete(s), f"it knows all: {sentinel.log()}", timeout=15)

    @staticmethod
    def is_complete(sentinel):
        try:
            fields = sentinel("SENTINEL", "master", "mymaster")
        except OSError:
            return False
        said = dict(zip(fields[::2], fields[1::2]))
        if said["num-slaves"] != "1" or said["num-other-sentinels"] != "1":
            return False
        [fields] = sentinel("SENTINEL", "replicas", "mymaster")
        said = dict(zip(fields[::2], fields[1::2]))
        return said["flags"] == "slave" and said["master-link-status"] == "ok"  # else it is not made the master

    @property
    def url(self):
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        user = f":{self.password}@" if self.password else ""
        return f"redis+sentinel://{user}{places}/mymaster"

    def wait_for_failover(self):
        lib.eventually(self.is_failed_over, "the replica is the master", timeout=15)

    def is_failed_over(self):
        try:
            return self.replica("ROLE")[0] == "master"
        except OSError:  # it cuts its clients off when it becomes the master
            return False


@pytest.fixture
def group(make_redis):
    return Group(make_redis)


def test_a_failover_with_the_key(group, make_probe):
    """The replica has the key: the holder goes on, and the waiting one does not notice."""
    one = make_probe(group.url, ttl_ms=20000, knows=group.master)
    two = make_probe(group.url, ttl_ms=20000, knows=group.master)
    one.want("comfyui")
    one.news("held")
    since = one.mark()
    two.want("vidi")
    two.news("foreign")
    value = group.master("GET", KEY)
    first = one.fence(1)
    lib.eventually(lambda: group.replica("GET", KEY) == value, "it is replicated")
    group.master.stop()
    group.wait_for_failover()
    lib.eventually(lambda: isinstance(one.fence(2), int), "fences from the new master", timeout=12)
    assert one.fence(3) > first
    assert group.replica("GET", KEY) == value
    assert not one.said("news lost", since)
    assert not two.said("news held")


def test_a_failover_that_loses_the_key(group, make_probe):
    """The replica never got the key: the holder puts it back; and when he is dead, it takes a time limit."""
    ttl_ms = 16000  # Sentinels whose first two elections failed need 12 s, and the holder believes no longer than this
    one = make_probe(group.url, ttl_ms=ttl_ms, knows=group.master)
    two = make_probe(group.url, ttl_ms=ttl_ms, knows=group.master)
    two.unwant()
    lib.eventually(lambda: two.state()[0] == "free", "it is connected", timeout=4)
    one.want("comfyui")
    one.news("held")
    since = one.mark()
    value = group.master("GET", KEY)
    group.replica("REPLICAOF", "NO", "ONE")  # as if all since then were lost
    group.replica("DEL", KEY)
    group.replica("REPLICAOF", "127.0.0.1", 1)
    group.master.stop()
    begin = time.monotonic()
    two.want("vidi")
    group.wait_for_failover()
    lib.eventually(lambda: group.replica("GET", KEY) == value, "the holder puts its key back")
    one.fence(1)
    assert isinstance(one.fence(2), int)
    assert not one.said("news lost", since) and not two.said("news held")
    one.kill()
    taken = two.news("held", timeout=2.5 * ttl_ms / 1000)
    assert taken.at - begin > ttl_ms / 1000
    assert two.fence(3) > int(one.said("fence")[-1].words[2])


def test_a_failover_by_hand_with_passwords(make_redis, make_probe):
    """Everything is alive: the news comes from the Sentinel, and nothing is lost."""
    group = Group(make_redis, password="hush")
    probe = make_probe(group.url, ttl_ms=ms(8000), knows=group.master)
    probe.want("comfyui")
    probe.news("held")
    since = probe.mark()
    first, value = probe.fence(1), group.master("GET", KEY)
    lib.eventually(lambda: group.replica("GET", KEY) == value, "it is replicated")
    group.sentinels[0]("SENTINEL", "FAILOVER", "mymaster")
    group.wait_for_failover()
    lib.eventually(lambda: isinstance(probe.fence(2), int), "fences from the new master", timeout=12)
    lib.eventually(lambda: group.replica("PTTL", KEY) > ms(5500), "it is renewed there", timeout=12)
    assert probe.fence(3) > first and not probe.said("news", since)
    assert "hush" not in probe.log() + str(probe.lines)


def test_the_master_hangs(group, make_probe):
    """The lock is lost in time, and got again from the new master."""
    probe = make_probe(group.url, ttl_ms=ms(400), knows=group.master)  # less than it takes to fail over
    probe.want()
    probe.news("held")
    since = probe.mark()
    first = probe.fence(1)
    group.master.hang()
    lost = probe.news("lost", since=since, timeout=3)
    held = probe.news("held", since=probe.lines.index(lost), timeout=12)
    assert held.at - lost.at < 12 * lib.SLOWNESS and probe.fence(2) > first
    group.wait_for_failover()


def test_sentinels_that_are_gone_or_know_nothing(group, make_probe):
    """One is enough; and what they do not know they say."""
    group.sentinels[0].hang()
    probe = make_probe(group.url, ttl_ms=ms(1500), knows=group.master)
    probe.want()
    probe.news("held", timeout=4)
    other = make_probe(group.url.replace("mymaster", "nobody"), ttl_ms=ms(1500))
    other.unwant()
    other.want()
    other.unavailable("sentinel monitor", timeout=12)  # the remedy
    group.sentinels[0].resume()


def test_a_sentinel_that_names_a_master_that_is_gone(make_redis, make_probe):
    """It was cut off from the others, and did not hear of the failover: they are asked as well."""

    def sentinel(port):
        master = b"*2\r\n" + bulk("127.0.0.1") + bulk(str(port))
        heard = b"*3\r\n" + bulk("subscribe") + bulk("+switch-master") + b":1\r\n"
        return FalseRedis(lambda words: master if words[0] == "SENTINEL" else heard)

    redis = make_redis()
    stale, right = sentinel(lib.free_port()), sentinel(redis.port)
    try:
        places = f"127.0.0.1:{stale.port},127.0.0.1:{right.port}"
        probe = make_probe(f"redis+sentinel://{places}/mymaster", knows=redis)
        probe.want()
        probe.news("held", timeout=4)
        # What was said to it last may be read only now.
        asked = [words[0] for words in stale.commands].count("SENTINEL")
        time.sleep(1)
        assert [words[0] for words in stale.commands].count("SENTINEL") == asked, "who was right is asked first from now on"
    finally:
        stale.close()
        right.close()


def test_the_first_contact_waits(group, make_probe):
    """Nobody can tell whether there was a failover a moment ago."""
    probe = make_probe(group.url, ttl_ms=ms(1000))
    begin = time.monotonic()
    probe.want()
    probe.unavailable("Sentinel")
    assert probe.news("held").at - begin > ms(950) / 1000
