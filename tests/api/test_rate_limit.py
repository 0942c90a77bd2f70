"""The token bucket: a burst, an even refill, and a bounded memory."""

from api.rate_limit import TokenBuckets, client_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_client_gets_its_minute_and_then_an_even_refill() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, clock)
    assert [buckets.take("a") for _ in range(61)] == [True] * 60 + [False]
    assert buckets.retry_after("a") == 1
    clock.now += 1.0
    assert [buckets.take("a") for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [buckets.take("a") for _ in range(61)] == [True] * 60 + [False]


def test_clients_do_not_share_a_bucket() -> None:
    buckets = TokenBuckets(1, Clock())
    assert buckets.take("a")
    assert buckets.take("b")
    assert not buckets.take("a")


def test_memory_is_bounded_and_the_recently_counted_are_kept() -> None:
    clock = Clock()
    buckets = TokenBuckets(1, clock, clients=100)
    for number in range(1000):
        clock.now += 0.001
        buckets.take(f"client {number}")
    assert len(buckets) <= 100
    assert not buckets.take("client 999")


def test_clients_whose_bucket_is_full_again_are_forgotten_first() -> None:
    clock = Clock()
    buckets = TokenBuckets(60, clock, clients=10)
    for number in range(10):
        buckets.take(f"old {number}")
    clock.now += 61
    buckets.take("new")
    assert len(buckets) == 1


def test_an_ipv6_network_counts_as_one_client() -> None:
    assert client_of("2001:db8:1:2:3:4:5:6") == client_of("2001:db8:1:2:ffff::1") == "2001:db8:1:2::/64"
    assert client_of("2001:db8:1:3::1") != client_of("2001:db8:1:2::1")
    assert client_of("::ffff:203.0.113.9") == client_of("203.0.113.9") == "203.0.113.9"
    assert client_of("testclient:x") == "testclient:x"
