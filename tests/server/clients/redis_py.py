"""redis-py against a server: `redis_py.py HOST PORT`. Ends with 1 at the first claim that is not so."""

import sys
import threading
import time

import redis

HOST, PORT = sys.argv[1], int(sys.argv[2])


def client(**options):
    return redis.Redis(host=HOST, port=PORT, socket_timeout=60, **options)


def raises(error, text, call):
    try:
        call()
    except error as raised:
        assert text in str(raised), str(raised)
    else:
        raise AssertionError(f"no {error.__name__}")


def values_come_back_as_they_were(r):
    everything = bytes(range(256)) * 100
    assert r.set("bytes", everything) is True
    assert r.get("bytes") == everything
    assert r.set("empty", "") is True and r.get("empty") == b""
    assert r.get("missing") is None
    assert r.set("bytes", "x", nx=True) is None
    assert r.set("bytes", "x", xx=True, get=True) == everything
    assert r.mset({f"m{i}": i for i in range(500)}) is True
    assert r.mget([f"m{i}" for i in range(500)]) == [b"%d" % i for i in range(500)]
    assert r.mget("m1", "missing") == [b"1", None]
    assert r.delete("m1", "m2", "missing") == 2
    assert r.exists("m1", "m3", "m3") == 2
    assert r.append("m3", "4") == 2 and r.strlen("m3") == 2
    assert r.getrange("m3", 0, 0) == b"3" and r.setrange("m3", 1, "5") == 2
    assert r.getdel("m3") == b"35" and r.get("m3") is None
    assert r.setbit("bits", 7, 1) == 0 and r.bitcount("bits") == 1
    large = "v" * (8 << 20)
    assert r.set("large", large) and len(r.get("large")) == len(large)


def numbers_are_numbers(r):
    assert r.incr("n") == 1 and r.incrby("n", 41) == 42 and r.decr("n") == 41
    assert r.incrbyfloat("f", 0.5) == 0.5
    r.set("word", "w")
    raises(redis.ResponseError, "not an integer", lambda: r.incr("word"))


def keys_expire(r):
    assert r.set("short", "1", px=200) is True
    assert r.set("long", "1", ex=100) is True
    assert 98 <= r.ttl("long") <= 100 and 98_000 <= r.pttl("long") <= 100_000
    assert r.expire("long", 200, gt=True) and not r.expire("long", 100, gt=True)
    assert r.persist("long") and r.ttl("long") == -1 and r.ttl("missing") == -2
    at = int(time.time()) + 1000
    assert r.expireat("long", at) and r.expiretime("long") == at
    assert r.getex("long", persist=True) == b"1" and r.ttl("long") == -1
    time.sleep(0.3)
    assert r.get("short") is None and not r.exists("short")


def keys_are_found(r):
    assert r.flushall() is True and r.dbsize() == 0
    names = {b"user:%d" % i for i in range(1000)}
    with r.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, name)
        assert pipeline.execute() == [True] * 1000
    r.set("other", 1)
    assert set(r.scan_iter()) == names | {b"other"}
    assert set(r.scan_iter(match="user:*", count=100)) == names
    assert set(r.scan_iter(match="user:?", _type="string")) == {b"user:%d" % i for i in range(10)}
    assert set(r.keys("user:99?")) == {b"user:99%d" % i for i in range(10)}
    assert r.randomkey() in names | {b"other"}
    assert r.type("other") == b"string" and r.type("missing") == b"none"
    assert r.rename("other", "renamed") and r.copy("renamed", "copied")
    assert r.get("copied") == b"1" and r.touch("copied", "other") == 1
    assert r.restore("restored", 0, r.dump("copied")) and r.get("restored") == b"1"


def pipelines_answer_in_order(r):
    with r.pipeline(transaction=False) as pipeline:
        for i in range(10_000):
            pipeline.set(f"p{i % 10}", i).get(f"p{i % 10}")
        answers = pipeline.execute()
    assert answers == [x for i in range(10_000) for x in (True, b"%d" % i)]
    with r.pipeline(transaction=False) as pipeline:
        answers = pipeline.set("a", "w").incr("a").get("a").execute(raise_on_error=False)
    assert answers[0] is True and answers[2] == b"w"
    assert isinstance(answers[1], redis.ResponseError)


def transactions_are_one_change_or_none(r):
    r.set("balance", 100)
    with r.pipeline() as pipeline:
        assert pipeline.decrby("balance", 10).incrby("other balance", 10).execute() == [90, 10]
    with r.pipeline() as pipeline:
        pipeline.watch("balance")
        assert pipeline.get("balance") == b"90"
        client().set("balance", 1)
        pipeline.multi()
        pipeline.set("balance", 2)
        raises(redis.WatchError, "changed", pipeline.execute)
    assert r.get("balance") == b"1"
    tries = []

    def add(pipeline):
        value = int(pipeline.get("balance"))
        if not tries:
            client().set("balance", 5)
        tries.append(value)
        pipeline.multi()
        pipeline.set("balance", value + 1)

    assert r.transaction(add, "balance") == [True]
    assert tries == [1, 5] and r.get("balance") == b"6"
    with r.pipeline() as pipeline:
        pipeline.set("balance", 7)
        pipeline.execute_command("NOSUCH")
        raises(redis.ResponseError, "unknown command", pipeline.execute)
    assert r.get("balance") == b"6"


def many_threads_share_a_pool(_):
    pool = redis.ConnectionPool(host=HOST, port=PORT, max_connections=20)
    r = redis.Redis(connection_pool=pool)
    r.delete("counter")
    failures = []

    def work(thread):
        try:
            for i in range(100):
                r.incr("counter")
                key = f"thread{thread}"
                assert r.set(key, i) and int(r.get(key)) == i
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and r.get("counter") == b"2000"
    pool.disconnect()


def the_server_tells_of_itself(r):
    info = r.info()
    assert info["loading"] == 0 and info["role"] == "master"
    assert r.info("stats")["total_commands_processed"] > 0
    assert "timeout" in r.config_get("*")
    assert r.client_setname("tester") and r.client_getname() in ("tester", b"tester")
    [this] = [each for each in r.client_list() if each["name"] == "tester"]
    assert int(this["id"]) == r.client_id() and this["lib-name"].startswith("redis-py"), this
    assert "get" in r.command() and r.command_count() > 50
    assert r.echo("words and more") == b"words and more"
    seconds, micros = r.time()
    assert abs(seconds - time.time()) < 60 and 0 <= micros < 1_000_000
    assert r.memory_usage("balance") > 0
    assert r.lastsave() is not None and r.ping() is True
    raises(redis.ResponseError, "unknown command", lambda: r.lpush("list", 1))
    raises(redis.ResponseError, "DB index", lambda: r.execute_command("SELECT", 1))


def text_can_be_text(_):
    r = client(decode_responses=True, client_name="texts")
    assert r.set("ключ", "значение") and r.get("ключ") == "значение"
    assert r.client_getname() == "texts"


def locks_need_scripts_and_say_so(r):
    # `Lock.release` runs a script, which is no part of this server.
    lock = r.lock("lock", timeout=10)
    raises(redis.ResponseError, "unknown command", lambda: lock.acquire() and lock.release())


CLAIMS = [
    values_come_back_as_they_were,
    numbers_are_numbers,
    keys_expire,
    keys_are_found,
    pipelines_answer_in_order,
    transactions_are_one_change_or_none,
    many_threads_share_a_pool,
    the_server_tells_of_itself,
    text_can_be_text,
    locks_need_scripts_and_say_so,
]

client().flushall()
for options in [{}, {"protocol": 2}, {"protocol": 3}]:
    for claim in CLAIMS:
        print(f"redis-py {redis.__version__}, {options}: {claim.__name__}", flush=True)
        connection = client(**options)
        claim(connection)
        connection.close()
print("all claims hold")
