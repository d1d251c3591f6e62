from __future__ import annotations

import pytest

from afterswarm.daemon.addresses import advertised, choose, listening
from afterswarm.model.refused import Refused

ONE = {"eth0": ["192.0.2.10"]}
TWO = {"eth0": ["192.0.2.10"], "eth1": ["198.51.100.7"]}


@pytest.mark.parametrize(
    ("wish", "own", "chosen"),
    [
        ("", ONE, "192.0.2.10"),
        ("0.0.0.0:2377", ONE, "192.0.2.10"),
        ("198.51.100.7", TWO, "198.51.100.7"),
        ("198.51.100.7:2377", TWO, "198.51.100.7"),
        ("eth1", TWO, "198.51.100.7"),
        ("eth1:2377", TWO, "198.51.100.7"),
        ("[2001:db8::1]:2377", TWO, "2001:db8::1"),
        ("", {**ONE, "docker0": ["172.17.0.1"], "asw0123456789": ["10.0.0.254"]}, "192.0.2.10"),
        ("", {"eth0": ["192.0.2.10", "2001:db8::1"]}, "192.0.2.10"),
    ],
)
def test_an_address_is_chosen(wish, own, chosen):
    assert choose(wish, own) == chosen


@pytest.mark.parametrize(
    ("wish", "own", "words"),
    [
        ("", TWO, "could not choose an IP address to advertise since this system has multiple addresses on different"),
        ("", {"eth0": ["192.0.2.10", "192.0.2.11"]}, "multiple addresses on the same interface"),
        ("", {}, "specify one with --advertise-addr"),
        ("eth9", ONE, "must be a non-zero IP address or network interface"),
    ],
)
def test_what_cannot_be_chosen_is_refused_in_dockers_words(wish, own, words):
    with pytest.raises(Refused, match=words) as refused:
        choose(wish, own)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("wish", "opened"),
    [
        ("", ("", 2377)),
        ("0.0.0.0:2377", ("", 2377)),
        ("[::]:99", ("", 99)),
        ("eth1", ("198.51.100.7", 2377)),
        ("eth1:4000", ("198.51.100.7", 4000)),
        ("192.0.2.10:4000", ("192.0.2.10", 4000)),
        ("2001:db8::1", ("2001:db8::1", 2377)),
    ],
)
def test_where_to_listen(wish: str, opened: tuple[str, int]) -> None:
    assert listening(wish, TWO) == opened


@pytest.mark.parametrize("wish", ["eth9", "eth1:0", "eth1:x", "1.2.3.4:70000"])
def test_where_nobody_can_listen(wish: str) -> None:
    with pytest.raises(Refused):
        listening(wish, TWO)


def test_the_port_that_others_are_told() -> None:
    assert advertised("", 2377) == 2377
    assert advertised("192.0.2.10", 4000) == 4000
    assert advertised("192.0.2.10:5000", 4000) == 5000
