from __future__ import annotations

import pytest

from afterswarm.daemon.addresses import choose
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
