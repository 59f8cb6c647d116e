"""The lock across hosts on a real Redis: taken, renewed, given back, handed over, and kept over a restart of the daemon."""

import os
import re
import time

import pytest

import gpumgr_testlib as lib
from redis_server import OldManager, RedisError, is_handed_over_at_once, ms, record, seconds

KEY = "gpu_mutex_v2"
VALUE = re.compile(r"comfyui:[^:]+:[0-9a-f]{16}$")


def test_taken_renewed_and_given_back(redis, make_probe):
    probe = make_probe(ttl_ms=ms(1000))
    probe.want("comfyui")
    probe.news("held")
    value = redis("GET", KEY)
    assert VALUE.match(value), value
    for _ in range(15):  # half as long again as it would live by itself
        time.sleep(seconds(0.1))
        assert 0 < redis("PTTL", KEY) <= ms(1000)
        assert redis("GET", KEY) == value
    assert probe.state()[0] == "ours"
    probe.unwant()
    lib.eventually(lambda: redis("GET", KEY) is None, "it is given back", timeout=1)
    told = [line.words[1] for line in probe.said("news")]
    # What was before is not known. On a busy machine the first answer may have come too late.
    assert [word for word in told if word != "unavailable"] == ["lost", "held"]
    probe.news("held", since=probe.want("comfyui"))
    assert redis("GET", KEY) not in (None, value), "a new acquisition, a new value"


def test_nothing_is_told_after_unwant(redis, make_probe):
    probe = make_probe()
    redis("SET", KEY, "somebody", "PX", 600000)
    probe.want("comfyui")
    probe.news("foreign")
    probe.unwant()
    probe.state()  # it has taken note
    since = probe.mark()
    redis("PEXPIRE", KEY, ms(100))
    time.sleep(seconds(0.6))
    assert not probe.said("news", since)
    assert redis("GET", KEY) is None


def test_the_first_wish_without_a_lock_of_before(redis, make_probe):
    """A daemon that says at its start that it needs no lock is not told that it lost one later."""
    probe = make_probe()
    probe.unwant()
    probe.want("comfyui")
    probe.news("held")
    assert not probe.said("news lost")


def test_fences_grow_over_everything(redis, make_probe):
    probe = make_probe(ttl_ms=ms(2000))
    probe.unwant()
    fences = []
    for turn in range(3):
        probe.news("held", since=probe.want())
        fences += [probe.fence(10 * turn + i) for i in range(5)]
        probe.unwant()
        redis("DEL", "{gpu_mutex_v2}:fence")  # even that
    probe.quit()
    probe.start()
    since = probe.want()
    probe.news("held", since=since)
    fences.append(probe.fence(99))
    assert fences == sorted(set(fences)), fences
    assert all(0 < fence < 2**53 for fence in fences)
    assert int(record(probe.folder)["fences"]) >= fences[-1]


def test_fences_stay_above_those_of_this_host_even_with_a_clock_that_is_late(redis, make_probe):
    """The counter in Redis says more than any clock."""
    high = 2**52
    redis("SET", "{gpu_mutex_v2}:fence", high)
    probe = make_probe()
    probe.want()
    probe.news("held")
    assert probe.fence() == high + 1
    redis("SET", "{gpu_mutex_v2}:fence", 2**53 - 3)
    assert probe.fence(2) == 2**53 - 2
    assert "2^53" in probe.fence(3), "beyond that there are none"
    assert redis("GET", KEY) is not None


def test_what_is_held_stays_so_where_there_are_no_fences(redis, make_probe):
    probe = make_probe(ttl_ms=ms(1000))
    probe.unwant()
    probe.want()
    probe.news("held")
    assert isinstance(probe.fence(0), int)
    redis("SET", "{gpu_mutex_v2}:fence", 2**53 - 1)
    since = probe.mark()
    begin, number = time.monotonic(), 1
    while time.monotonic() - begin < seconds(2):  # twice as long as it would live by itself
        assert "delete that key" in probe.fence(number)
        number += 1
        time.sleep(0.1)
    assert not probe.said("news", since)
    redis("DEL", "{gpu_mutex_v2}:fence")
    assert isinstance(probe.fence(number), int)


def test_a_counter_that_was_changed_is_not_the_end_of_all_fences(redis, make_probe):
    """What was only seen there goes with the key, as the message says; nor does gpumgrd fail to start because of it."""
    probe = make_probe()
    probe.unwant()
    redis("SET", "{gpu_mutex_v2}:fence", 2**53 - 1)
    redis("SET", KEY, "cosyvoice")
    redis("PUBLISH", "{gpu_mutex_v2}:released", "waiting")
    lib.eventually(lambda: probe.state()[0] == "foreign", "it looked", timeout=7)
    redis("DEL", KEY)
    probe.want()
    probe.unavailable("delete that key")
    redis("DEL", "{gpu_mutex_v2}:fence")
    probe.news("held")
    fence = probe.fence(1)
    probe.unwant()
    lib.eventually(lambda: redis("GET", KEY) is None, "it is given back", timeout=2)
    probe.quit()
    probe.start()
    since = probe.want()
    probe.news("held", since=since)
    assert fence < probe.fence(2) < 2**52


def test_many_fences_at_once(redis, make_probe):
    probe = make_probe()
    probe.want()
    probe.news("held")
    probe.process.stdin.write("".join(f"fence {i}\n" for i in range(500)))
    probe.process.stdin.flush()
    probe.wait("fence 499 ")
    fences = [int(line.words[2]) for line in probe.said("fence")]
    assert len(fences) == 500 and fences == sorted(set(fences))


def test_a_foreign_holder_is_waited_for_and_named(redis, make_probe):
    probe = make_probe()
    redis("SET", KEY, "cosyvoice", "PX", 600000)
    probe.want("comfyui")
    assert "cosyvoice" in probe.news("foreign").text
    state, _, ttl_ms, holder = probe.state()
    assert (state, holder) == ("foreign", "cosyvoice") and 0 < ttl_ms <= 600000
    begin = time.monotonic()
    redis("PEXPIRE", KEY, ms(600))
    held = probe.news("held")
    assert seconds(0.55) < held.at - begin < seconds(0.6) + 1 * lib.SLOWNESS


def test_a_holder_without_a_limit_and_what_is_not_printable(redis, make_probe):
    redis("SET", KEY, b"\x00\xff\n" + b"x" * 100000)
    probe = make_probe()
    probe.want()
    text = probe.news("foreign").text
    assert "???xxx" in text and "unlock" in text and len(text) < 300
    assert probe.state()[2] == -1
    time.sleep(0.5)
    assert redis("STRLEN", KEY) == 100003, "it is never deleted"
    assert probe.force() == (True, "???" + "x" * 194 + "...")
    probe.news("held", timeout=1)


def test_an_empty_value_is_somebody_elses(make_redis, make_probe):
    redis = make_redis()
    redis("SET", KEY, "")
    probe = make_probe(redis.url, ttl_ms=1500)  # it waits, and has no value of its own yet
    probe.unwant()
    probe.want()
    probe.news("foreign")
    time.sleep(2)
    assert redis("EXISTS", KEY) == 1 and not probe.said("news held")


def test_who_changes_his_mind_leaves_the_line(make_redis, make_probe):
    redis = make_redis()
    redis("SET", KEY, "vidi")
    probe = make_probe(redis.url, ttl_ms=8000, knows=redis)  # an answer is waited for as long as for any
    probe.unwant()
    lib.eventually(lambda: probe.state()[0] == "foreign", "it looked", timeout=2)
    redis.hang()
    probe.want()
    time.sleep(0.1)  # it has asked, and has no answer
    probe.unwant()
    time.sleep(0.1)
    redis.resume()
    lib.eventually(lambda: redis("ZCARD", "{gpu_mutex_v2}:waiting") == 0, "it left")
    assert not probe.said("news")


def test_force_takes_only_what_was_seen(redis, make_probe):
    probe = make_probe()
    assert probe.force() == (False, ""), "nobody has it"
    listening = "PUBSUB", "NUMSUB", "{gpu_mutex_v2}:released"
    lib.eventually(lambda: redis(*listening)[1] == 1, "it listens")
    redis("SET", KEY, "cosyvoice")
    probe.want()
    probe.news("foreign")
    probe.unwant()
    lib.eventually(lambda: redis("ZCARD", "{gpu_mutex_v2}:waiting") == 0, "it left the line")
    time.sleep(0.3)  # it looks once more, at what it heard
    probe.hang()  # else it may look between what comes next, and then it has seen it
    redis("SET", KEY, "vidi")
    since = probe.mark()
    probe.send("force")
    probe.resume()
    forced = probe.wait("forced", since=since)
    assert forced.words[1] == "0" and "vidi" in forced.text, "somebody else than who was seen has it"
    assert redis("GET", KEY) == "vidi"
    assert probe.force() == (True, "vidi")
    assert redis("GET", KEY) is None
    probe.news("held", since=probe.want())
    assert probe.force() == (False, ""), "our own is not taken by force"


def test_two_daemons_hand_over_at_once(redis, make_probe):
    one, two = make_probe(ttl_ms=ms(3000)), make_probe(ttl_ms=ms(3000))
    one.want("comfyui")
    one.news("held")
    two.want("vidi")
    assert "comfyui:" in two.news("foreign").text
    assert is_handed_over_at_once(one, two, 0.05 * lib.SLOWNESS)


def test_the_line_is_first_come_first_served(redis, make_probe):
    holder = make_probe(ttl_ms=5000)
    holder.want()
    holder.news("held")
    others = [make_probe(ttl_ms=5000) for _ in range(4)]
    for probe in others:
        probe.want()
        probe.news("foreign")
    lib.eventually(lambda: holder.state()[1] == 4, "the holder knows how many wait", timeout=3)
    holder.unwant()
    for probe in others:
        probe.news("held", timeout=1)
        probe.unwant()
    times = [probe.said("news held")[0].at for probe in others]
    assert times == sorted(times)


def test_who_died_in_the_line_is_passed_over(redis, make_probe):
    holder, dead, third = (make_probe(ttl_ms=8000) for _ in range(3))
    holder.want()
    holder.news("held")
    dead.want()
    dead.news("foreign")
    third.want()
    third.news("foreign")
    dead.kill()
    begin = time.monotonic()
    holder.unwant()
    assert third.news("held", timeout=4).at - begin < 3 * lib.SLOWNESS


def test_the_holder_makes_way_after_its_tenure(redis, make_probe):
    one, two = make_probe(ttl_ms=ms(1000)), make_probe(ttl_ms=ms(1000))
    one.unwant()
    lib.eventually(lambda: one.state()[0] == "free", "it is connected")
    begin = time.monotonic()  # that it is held it says a moment later
    one.want()
    one.news("held")
    time.sleep(seconds(0.3))
    two.want()
    yielding = one.news("yielding", timeout=3)
    assert yielding.at - begin > seconds(0.95)
    assert one.state()[0] == "ours", "it is held until it is given back"
    one.unwant()
    one.want()
    two.news("held", timeout=1)
    assert one.state()[0] != "ours"
    since = one.mark()
    two.unwant()
    one.news("held", timeout=1, since=since)


def test_nobody_to_make_way_for_any_more(redis, make_probe):
    one, two = make_probe(ttl_ms=ms(1000)), make_probe(ttl_ms=ms(1000))
    one.want()
    one.news("held")
    two.want()
    yielding = one.news("yielding", timeout=3)
    two.unwant()
    one.news("held", timeout=2, since=one.lines.index(yielding))


def test_a_restart_of_the_daemon_goes_on_without_a_gap(redis, make_probe):
    probe = make_probe(ttl_ms=ms(2000))
    probe.want("comfyui")
    probe.news("held")
    value = redis("GET", KEY)
    probe.kill()
    since = probe.mark()
    probe.start()
    probe.want("comfyui")
    probe.news("held", since=since)
    assert not probe.said("news lost", since)
    assert redis("GET", KEY) == value
    assert probe.fence() > 0


def test_a_restart_while_nobody_can_be_asked(make_redis, make_probe):
    """The leases of before go on for as long as the lock is believed in; who wants a new one hears why there is none."""
    redis = make_redis()
    probe = make_probe(redis.url, ttl_ms=ms(5000), knows=redis)
    probe.want("comfyui")
    probe.news("held")
    probe.kill()
    redis.hang()
    since = probe.mark()
    probe.start()
    probe.want("comfyui")
    probe.news("unavailable", since=since, timeout=3)
    assert not probe.said("news lost", since)
    redis.resume()
    probe.news("held", since=since, timeout=4)
    assert not probe.said("news lost", since)


def test_a_restart_that_wants_nothing_gives_back(redis, make_probe):
    probe = make_probe(ttl_ms=20000)
    probe.want("comfyui")
    probe.news("held")
    probe.kill()
    assert redis("GET", KEY) is not None
    probe.start()
    probe.unwant()
    lib.eventually(lambda: redis("GET", KEY) is None, "it gives back what it held before", timeout=2)


@pytest.mark.parametrize("what", ["late", "deleted", "taken"])
def test_a_restart_after_the_lock_was_lost(redis, make_probe, what):
    probe = make_probe(ttl_ms=1000)
    probe.want("comfyui")
    probe.news("held")
    probe.kill()
    if what == "late":
        time.sleep(1.05)
    else:
        redis("DEL", KEY)
    if what == "taken":
        redis("SET", KEY, "vidi", "PX", 600000)
    since = probe.mark()
    probe.start()
    probe.want("comfyui")
    lost = probe.news("lost", since=since)
    if what == "taken":
        probe.news("foreign", since=since)
        redis("DEL", KEY)
    held = probe.news("held", since=since)
    assert lost.at < held.at
    assert bool(probe.said("news foreign", since)) == (what == "taken")


def test_a_file_that_is_damaged(redis, make_probe):
    probe = make_probe(ttl_ms=ms(1000))
    probe.want()
    probe.news("held")
    first = probe.fence()
    probe.kill()
    (probe.folder / "lock.redis").write_bytes(b"gpumgr lock 1\nvalue \xff\x00")
    since = probe.mark()
    probe.start()
    probe.want()
    probe.news("lost", since=since)
    probe.news("held", since=since, timeout=3)
    assert probe.fence(2) > first
    assert "damaged" in probe.log()


def test_the_file_is_nobody_elses(redis, make_probe):
    probe = make_probe()
    probe.want()
    probe.news("held")
    assert (probe.folder / "lock.redis").stat().st_mode & 0o777 == 0o600
    assert "lock.redis.new" not in os.listdir(probe.folder)


def test_force_from_outside_is_noticed_with_the_next_fence(redis, make_probe):
    probe = make_probe(ttl_ms=10000)
    probe.want()
    probe.news("held")
    since = probe.mark()
    assert isinstance(probe.fence(1), int)  # the one that came with the lock
    redis("DEL", KEY)
    said = probe.fence(2)
    lost = probe.news("lost", since=since)
    assert "force" in lost.text
    # The daemon may have looked at its key in this very moment, for a reason of its own: then it knows already, and may
    # even have it again.
    if isinstance(said, int):
        assert probe.lines.index(lost) < probe.lines.index(probe.wait("fence 2"))
    else:
        assert "deleted" in said or "is not held" in said, said
    probe.news("held", since=probe.lines.index(lost))


def test_another_took_it_by_force(redis, make_probe):
    one, two = make_probe(ttl_ms=10000), make_probe(ttl_ms=10000)
    one.want("comfyui")
    one.news("held")
    since = one.mark()
    two.want("vidi")
    two.news("foreign")
    released, holder = two.force()
    assert released and holder.startswith("comfyui:")
    two.news("held", timeout=1)
    one.news("lost", timeout=1, since=since)  # at once, not with the next renewal
    one.news("foreign vidi:", timeout=2)


def test_hosts_of_another_name_are_pointed_out_once(redis, make_probe):
    probe = make_probe()
    redis("SET", KEY, "comfyui:otherhost:0123456789abcdef", "PX", 600000)
    probe.want()
    probe.news("foreign")
    redis("DEL", KEY)
    probe.news("held")
    assert probe.log().count(KEY + ":${HOST}") == 1
    assert "otherhost" in probe.log()


def test_the_host_in_the_key(redis, make_probe):
    probe = make_probe(key="{cards}:${HOST}")
    probe.want()
    probe.news("held")
    assert redis("EXISTS", "{cards}:" + os.uname().nodename) == 1
    assert redis("EXISTS", "{cards}:" + os.uname().nodename + ":fence") == 1, "the same slot"


def test_other_databases(redis, make_probe):
    probe = make_probe(url=redis.url + "?db=3", knows=redis)
    probe.want()
    probe.news("held")
    client = redis.client()
    assert client("EXISTS", KEY) == 0
    client("SELECT", 3)
    assert client("EXISTS", KEY) == 1
    client.close()


def test_mutual_exclusion_with_the_old_manager(redis, make_probe):
    """Both ways, and each sees the other's name."""
    old = OldManager(redis, KEY, "cosyvoice")
    probe = make_probe()
    assert old.try_to_lock()
    probe.want("comfyui")
    assert "cosyvoice" in probe.news("foreign").text
    old.unlock()
    probe.news("held", timeout=1)
    assert not old.try_to_lock()
    assert old.redis("GET", KEY).startswith("comfyui:")
    old.unlock()  # it must not delete what is not its own
    assert redis("GET", KEY).startswith("comfyui:")
    probe.unwant()
    lib.eventually(old.try_to_lock, "the old manager gets it", timeout=1)
    old.close()


def test_nobody_waits_and_the_status_still_knows(redis, make_probe):
    probe = make_probe()
    probe.unwant()
    lib.eventually(lambda: probe.state()[0] == "free", "it looked", timeout=2)
    redis("SET", KEY, "cosyvoice")
    redis("PUBLISH", "{gpu_mutex_v2}:released", "waiting")
    lib.eventually(lambda: probe.state()[3] == "cosyvoice", "it looked again", timeout=2)


def test_another_type_of_key(redis, make_probe):
    redis("RPUSH", KEY, "x")
    probe = make_probe()
    probe.want()
    probe.unavailable(KEY, "lock.key")
    redis("DEL", KEY)
    probe.news("held", timeout=2)
    with pytest.raises(RedisError):
        redis("LPUSH", KEY, "x")
