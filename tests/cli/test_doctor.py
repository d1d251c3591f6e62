from __future__ import annotations

from typing import Any

import pytest

from afterswarm.cli import doctor, probes
from afterswarm.cli.doctor import Mark
from afterswarm.cli.probes import NOBODY, OPEN, SILENT


def member(**changes: Any) -> dict[str, Any]:
    return {
        "Address": "10.0.0.2",
        "Self": False,
        "Manager": True,
        "HeardSecondsAgo": 0.1,
        "Gateway": "10.9.0.2",
        **changes,
    }


@pytest.mark.parametrize(
    ("probed", "expected", "mark"),
    [
        (OPEN, True, Mark.OK),
        (OPEN, False, Mark.OK),
        (NOBODY, False, Mark.OK),
        (NOBODY, True, Mark.FAIL),
        (SILENT, False, Mark.FAIL),
        (SILENT, True, Mark.FAIL),
    ],
)
def test_a_tcp_port_that_nobody_answers_on_is_blocked_and_one_refused_is_not(probed, expected, mark):
    found = doctor.control("10.0.0.2", 2377, "control", probed, expected=expected)
    assert found.mark is mark
    assert bool(found.advice) == (mark is Mark.FAIL)


def test_beats_are_judged_by_what_was_heard():
    assert doctor.beats("10.0.0.2", member(), SILENT).mark is Mark.OK
    assert doctor.beats("10.0.0.2", member(HeardSecondsAgo=3.0), SILENT).mark is Mark.FAIL
    assert "never" in doctor.beats("10.0.0.2", member(HeardSecondsAgo=None), SILENT).what
    assert doctor.beats("10.0.0.2", None, NOBODY).mark is Mark.OK
    assert doctor.beats("10.0.0.2", None, SILENT).mark is Mark.FAIL
    assert doctor.beats("10.0.0.1", member(Self=True, HeardSecondsAgo=None), SILENT).mark is Mark.OK


def test_the_tunnel_is_judged_by_an_answer_through_it():
    assert doctor.tunnel("10.0.0.2", "10.9.0.2", NOBODY, own=False).mark is Mark.OK
    assert doctor.tunnel("10.0.0.2", "10.9.0.2", SILENT, own=False).mark is Mark.FAIL
    assert doctor.tunnel("10.0.0.2", "", NOBODY, own=False).mark is Mark.OK
    assert doctor.tunnel("10.0.0.2", "", SILENT, own=False).mark is Mark.NOTE


def test_clocks_may_differ_a_little():
    assert doctor.clock("10.0.0.2", -0.3).mark is Mark.OK
    assert doctor.clock("10.0.0.2", 7.0).mark is Mark.FAIL
    assert doctor.clock("10.0.0.2", None).mark is Mark.NOTE


def test_an_engine_in_swarm_mode_or_too_old_is_named_with_the_way_out(monkeypatch):
    said = {"ServerVersion": "19.03.1", "Swarm": {"LocalNodeState": "active"}}
    monkeypatch.setattr(probes, "get", lambda _path, _target: said)
    version, state = doctor.engine("/run/docker.sock")
    assert version.mark is Mark.FAIL
    assert "upgrade" in version.advice
    assert state.mark is Mark.FAIL
    assert "swarm leave" in state.advice


def test_an_engine_that_is_not_there_is_named_with_the_way_out(tmp_path):
    [found] = doctor.engine(str(tmp_path / "none.sock"))
    assert found.mark is Mark.FAIL
    assert "docker.io" in found.advice


def test_a_kernel_that_soon_forgets_idle_connections_is_named_with_the_way_out():
    [short] = doctor.idle(900)
    assert short.mark is Mark.FAIL
    assert "15 min" in short.what
    assert "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established" in short.advice
    assert [found.mark for found in doctor.idle(432_000)] == [Mark.OK]
    assert list(doctor.idle(None)) == [], "it tracks none yet"


def standing(**changes: Any) -> dict[str, Any]:
    return {
        "Ports": {},
        "Repairs": {},
        "Failures": {},
        "Failing": {},
        "Last": "",
        "LastAt": 0.0,
        "Looked": 998.0,
        "Now": 1000.0,
        **changes,
    }


def test_a_kernel_that_holds_what_is_wanted_is_well():
    holds, repaired = doctor.network(standing())
    assert (holds.mark, repaired.mark) == (Mark.OK, Mark.OK)
    assert "2 s ago" in holds.what


def test_repairs_are_told_with_the_last_one():
    told = standing(Repairs={"rules": 2, "fdb": 1}, Last="rules of this host: table afterswarm was gone", LastAt=940.0)
    _, repaired = doctor.network(told)
    assert repaired.mark is Mark.NOTE
    assert "fdb 1, rules 2; last 60 s ago: rules of this host: table afterswarm was gone" in repaired.what
    assert repaired.advice


@pytest.mark.parametrize("change", [{"Looked": 0.0}, {"Looked": 900.0}, {"Failing": {"links": "no such device"}}])
def test_a_kernel_that_does_not_is_named_with_what_to_do(change):
    found, _ = doctor.network(standing(**change))
    assert found.mark is Mark.FAIL
    assert found.advice


def test_ports_are_those_that_the_running_daemon_uses(monkeypatch):
    said = {
        "/afterswarm/peers": [member(Port=3377)],
        "/afterswarm/standing": standing(Ports={"tunnels": 4790}),
    }
    asked = []
    monkeypatch.setattr(probes, "get", lambda _path, target: said[target])
    monkeypatch.setattr(probes, "tcp", lambda _address, port: asked.append(port) or OPEN)
    monkeypatch.setattr(probes, "udp", lambda _address, port: asked.append(port) or NOBODY)
    monkeypatch.setattr(probes, "clock_offset", lambda _address, port: asked.append(port) or 0.0)
    found = "\n".join(finding.what for finding in doctor.peer("10.0.0.2", "/run/x.sock"))
    assert "port 3377/tcp (control)" in found
    assert "port 4790/udp (overlay networks)" in found
    assert 2377 not in asked
