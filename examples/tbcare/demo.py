"""The main job as a story: three hosts become a swarm, one compose file is deployed, the leader's power is cut.

`make demo` runs it; `make demo DEMO=--keep` leaves everything running. Leaves build/demo/report.json and
build/demo/timeline.png. Exit code 1 when the application did not recover.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import images
import report as reports
from dockerapi import Replicas, get
from steady import Steady, longest_gap

from afterswarm import __version__
from afterswarm.lab.cable import LabError
from afterswarm.lab.hosts import REGISTRY, LabHost
from afterswarm.lab.lab import Lab

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build"
STACK = "tbcare"
PATIENCE = 180.0  # seconds that any wait may take
SILENCE = 4.0  # seconds after which a wait says that it is still waiting
BEGUN = time.monotonic()


class NotRecovered(Exception):
    """What was waited for did not come."""


def say(text: str = "") -> None:
    stamp = f"{time.monotonic() - BEGUN:6.1f}s "
    print("\n".join((stamp + line) if line.strip() else "" for line in text.split("\n")), flush=True)


def chapter(text: str) -> None:
    print(flush=True)
    say(f"=== {text}")


class Story:
    """The hosts, and what happens to them."""

    def __init__(self, lab: Lab, hosts: list[LabHost]) -> None:
        self.lab, self.hosts = lab, {h.name: h for h in hosts}
        self.seen: list[Replicas] = []
        self.compose = {
            **os.environ,
            "TBCARE_IMAGES": f"{REGISTRY}/",
            "TBCARE_SECRETS": str(BUILD / "demo" / "secrets"),
        }

    def docker(self, host: str, *words: str, quiet: bool = False) -> str:
        """Run the docker command line against a host's socket, and show both."""
        shown = " ".join(shlex.quote(w) for w in words)
        if not quiet:
            say(f"{host}$ docker {shown}")
        done = subprocess.run(
            ["docker", "-H", f"unix://{self.hosts[host].socket}", *words],
            capture_output=True, text=True, check=False, env=self.compose,
        )  # fmt: skip
        text = (done.stdout + done.stderr).rstrip()
        if not quiet and text:
            print("\n".join("        " + line for line in text.split("\n")), flush=True)
        if done.returncode:
            raise NotRecovered(f"docker {shown} on {host} failed: {text}")
        return done.stdout.strip()

    async def until(self, what: str, host: str, good: Callable[[Replicas], bool]) -> Replicas:
        """Look at the swarm through one host until it is as wanted, saying what changes."""
        ends, said, last, trouble = time.monotonic() + PATIENCE, time.monotonic(), "", ""
        while time.monotonic() < ends:
            try:
                now = await asyncio.to_thread(Replicas, self.hosts[host].socket)
            except OSError as e:
                trouble = f" ({e})"
            else:
                trouble = ""
                self.seen.append(now)
                line = now.line(STACK)
                if line != last or time.monotonic() - said > SILENCE:
                    say(f"  {line}")
                    last, said = line, time.monotonic()
                if good(now):
                    return now
            if time.monotonic() - said > SILENCE:
                say(f"  waiting: {what}{trouble}")
                said = time.monotonic()
            await asyncio.sleep(0.1)
        raise NotRecovered(f"{what}: not within {PATIENCE:.0f} s{trouble}")

    async def until_nodes(self, what: str, host: str, good: Callable[[list[dict[str, Any]]], bool]) -> float:
        """Look at `/nodes` until it is as wanted; returns the time (epoch seconds) when it was."""
        ends, said = time.monotonic() + PATIENCE, time.monotonic()
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                if good(await asyncio.to_thread(get, self.hosts[host].socket, "/nodes")):
                    return time.time()
            if time.monotonic() - said > SILENCE:
                say(f"  waiting: {what}")
                said = time.monotonic()
            await asyncio.sleep(0.05)
        raise NotRecovered(f"{what}: not within {PATIENCE:.0f} s")


def state_of(nodes: list[dict[str, Any]], name: str) -> str:
    return next((n["Status"]["State"] for n in nodes if n["Description"]["Hostname"] == name), "")


def leader_of(nodes: list[dict[str, Any]]) -> str:
    return next((n["Description"]["Hostname"] for n in nodes if n.get("ManagerStatus", {}).get("Leader")), "")


def managers(nodes: list[dict[str, Any]]) -> int:
    return sum(n.get("ManagerStatus", {}).get("Reachability") == "reachable" for n in nodes)


def use(address: str) -> str:
    """Write a record through one host's address and read the list back: what a nurse would do."""
    body = json.dumps({"name": "Ada", "born": "1990-12-10", "notes": f"seen at {address}"}).encode()
    request = urllib.request.Request(
        f"http://{address}/patients", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        made = json.load(answer)
    with urllib.request.urlopen(f"http://{address}/patients", timeout=10) as answer:
        rows = json.load(answer)
    if made["id"] not in [r["id"] for r in rows]:
        raise NotRecovered(f"record {made['id']} was written through {address} and is not in the list")
    return f"wrote record {made['id']}, the list has it; {len(rows)} shown"


async def use_until_it_works(address: str) -> None:
    """As `use`, tried again for a while: a person would press the button twice."""
    ends = time.monotonic() + 30
    while True:
        try:
            say(f"http://{address}/patients: {await asyncio.to_thread(use, address)}")
        except OSError as e:
            if time.monotonic() > ends:
                raise NotRecovered(f"http://{address}/patients: {e}") from e
            await asyncio.sleep(0.5)
        else:
            return


@contextlib.asynccontextmanager
async def steadily(client: Steady) -> AsyncIterator[None]:
    """The steady client works while this is open."""
    async with asyncio.TaskGroup() as group:
        group.create_task(client.run())
        try:
            yield
        finally:
            client.stopping.set()


async def form_swarm(story: Story) -> None:
    chapter("Three hosts become one swarm")
    first, *others = story.hosts
    story.docker(first, "swarm", "init", "--advertise-addr", story.hosts[first].address)
    token = story.docker(first, "swarm", "join-token", "-q", "manager")
    for other in others:
        story.docker(other, "swarm", "join", "--token", token, f"{story.hosts[first].address}:2377")
    await story.until_nodes("three managers", first, lambda ns: managers(ns) == len(story.hosts))
    story.docker(first, "node", "ls")


async def deploy(story: Story) -> tuple[float, str, str]:
    """Returns the seconds that it took, the leader's name and the name of the database's host."""
    first = next(iter(story.hosts))
    leader = leader_of(await asyncio.to_thread(get, story.hosts[first].socket, "/nodes"))
    home = next(h for h in reversed(story.hosts) if h != leader)
    chapter("One compose file, deployed")
    say(f"The database's volume shall lie on {home}, not on the leader: its own survival is a later chapter's.")
    story.docker(first, "node", "update", "--label-add", "tbcare.db=true", home)
    begun = time.time()
    story.docker(first, "stack", "deploy", "-c", str(HERE / "compose.yaml"), STACK)
    whole = await story.until("all replicas running", first, lambda r: r.whole)
    took = whole.at - begun
    story.docker(first, "service", "ls")
    story.docker(home, "ps", "--format", "table {{.Names}}\t{{.Image}}\t{{.Status}}")
    return took, leader, home


async def tell(story: Story) -> dict[str, Any]:
    """All chapters from the swarm's birth to the host's return; returns the report."""
    await form_swarm(story)
    chapter("The registry is filled")
    first = next(iter(story.hosts.values()))
    grafana = await asyncio.to_thread(
        images.fill, first.socket, REGISTRY, BUILD / "images", story.lab.root / "cache", say
    )
    if not grafana:
        say("Grafana is in neither Debian's packages nor PyPI, and no public registry answers here:")
        say("that one service is left out (0 replicas). Its dashboards are in examples/tbcare/grafana.")
        story.compose["TBCARE_GRAFANA"] = "0"
    took, leader, home = await deploy(story)
    survivor = next(h for h in story.hosts if h not in (leader, home))
    door = story.hosts[survivor].address

    chapter("The application, through a host's address")
    await use_until_it_works(story.hosts[leader].address)
    await use_until_it_works(door)
    stats = await asyncio.to_thread(urllib.request.urlopen, f"http://{door}/locust/stats/requests", timeout=10)
    with stats:
        say(f"Locust at http://{door}/locust: {json.load(stats).get('user_count')} users at work")

    client = Steady(door, 80, "/patients")
    async with steadily(client):
        say(f"A steady client asks {client.rate:.0f} times a second at http://{door}/patients, a connection each.")
        await asyncio.sleep(3)
        chapter(f"Power cut of the leader, {leader}")
        say(f"$ afterswarm lab kill {leader}")
        cut = time.time()
        await asyncio.to_thread(story.lab.kill, leader)
        down = await story.until_nodes(f"{leader} shown Down", survivor, lambda ns: state_of(ns, leader) == "down")
        say(f"{leader} is shown Down after {down - cut:.1f} s")
        healed = await story.until(
            "all replicas running elsewhere", survivor, lambda r: not r.ready.get(leader) and r.whole
        )
        say(f"all replicas run elsewhere after {healed.at - cut:.1f} s")
        story.docker(survivor, "node", "ls")
        story.docker(survivor, "service", "ls")
        await use_until_it_works(door)

        chapter(f"{leader} returns")
        say(f"$ afterswarm lab start {leader}")
        back = time.time()
        await asyncio.to_thread(story.lab.start, leader, wait=False)
        returned = await story.until_nodes(
            f"{leader} shown Ready, three managers reachable", survivor,
            lambda ns: state_of(ns, leader) == "ready" and managers(ns) == len(story.hosts),
        )  # fmt: skip
        await story.until("all replicas running", survivor, lambda r: r.whole)
        story.docker(survivor, "node", "ls")
        await use_until_it_works(story.hosts[leader].address)
        client.stopping.set()
        await asyncio.sleep(1)
    samples = sorted(client.samples, key=lambda s: s.at)
    outage = longest_gap(samples, samples[0].at, samples[-1].at)
    outcome = {
        "deploy_seconds": round(took, 1),
        "killed_host": leader,
        "database_host": home,
        "down_seconds": round(down - cut, 1),
        "recovered_seconds": round(healed.at - cut, 1),
        "requests": len(samples),
        "failed": len(samples) - client.answered(),
        "longest_outage_seconds": round(outage, 2),
        "returned_seconds": round(returned - back, 1),
        "versions": versions(story, survivor),
    }
    picture = await asyncio.to_thread(reports.draw, BUILD / "demo", story.seen, samples, cut, back)
    say(f"picture: {picture}")
    return outcome


def versions(story: Story, host: str) -> dict[str, str]:
    """What all this ran on."""
    server = get(story.hosts[host].socket, "/version")
    etcd = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return {
        "afterswarm": __version__,
        "engine": server["Version"],
        "docker": story.docker(host, "version", "--format", "{{.Client.Version}}", quiet=True),
        "etcd": etcd[2],
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
    }


def reasons(trouble: Exception) -> list[str]:
    """What went wrong, in words; anything but what a demo may meet is a bug and is raised again."""
    if isinstance(trouble, ExceptionGroup):
        return [word for inner in trouble.exceptions for word in reasons(inner)]
    if isinstance(trouble, NotRecovered | LabError | OSError):
        return [str(trouble)]
    raise trouble


def make_secrets() -> None:
    folder = BUILD / "demo" / "secrets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("db_password", "grafana_password"):
        (folder / name).write_text(secrets.token_urlsafe(16))


def main() -> int:
    """Tell the story; returns the exit code."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--keep", action="store_true", help="leave it running and say how to look around")
    keep = options.parse_args().keep
    lab = Lab(out=lambda line: say("  " + line))
    make_secrets()
    try:
        chapter("Three hosts on this machine")
        lab.down()
        hosts = lab.up(3)
        outcome = asyncio.run(tell(Story(lab, hosts)))
    except (NotRecovered, LabError, OSError, ExceptionGroup) as trouble:
        say(f"FAILED: {'; '.join(reasons(trouble))}")
        say(f"logs: {lab.root}/swarm-*/disk/log/")
        if not keep:
            lab.down()
        return 1
    print(reports.table(outcome), flush=True)
    say(f"report: {reports.write(BUILD / 'demo', outcome)}")
    if keep:
        say("left running; look around with:")
        for line in (
            "lab status",
            "lab exec swarm-2 -- docker service ls",
            "lab exec swarm-3 -- docker node ls",
            "lab down",
        ):
            say(f"  .venv/bin/afterswarm {line}")
        say("  http://10.77.0.2/patients   http://10.77.0.2/locust/   http://10.77.0.2:9090/targets")
    else:
        lab.down()
    if outcome["longest_outage_seconds"] > 2:
        say("FAILED: more than 2 s between two answers of the application")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
