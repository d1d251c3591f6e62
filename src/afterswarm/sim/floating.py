"""Hosts and managers around one floating address, in true time: lossy and slow messages, pauses, restarts, partitions,
managers that come and go. Every clock begins elsewhere and runs at a rate of its own.

What the shells in `agent.floating` do around the decisions of `core.floating`, this does in memory. A host *answers*
for the address while its kernel does: as long as its daemon allowed the last time, even if it has been paused since.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf
from random import Random

from afterswarm.core.floating import FRESH, OPEN, electorate, holder, voter
from afterswarm.core.floating.electorate import Electorate
from afterswarm.core.floating.holder import Counted, Holder
from afterswarm.core.floating.voter import View, Voter
from afterswarm.model.floating import Ask, Call, Choice, Letters, Vote

STEP = 0.01  # seconds
TICK = 0.05  # seconds between looks of a daemon
ADDRESS = "192.0.2.9"


class Host:
    """One host; a manager besides while it is in `World.managers`."""

    def __init__(self, name: str, rng: Random) -> None:
        self.name = name
        self.rate = rng.uniform(0.97, 1.03)
        self.begun = rng.uniform(-1000, 1000)
        self.paused_until = -inf  # true time, as `down_until`
        self.down_until = -inf
        self.boots = 0
        self.open_until = -inf  # its clock; the kernel's, which goes on while the daemon is paused
        self.inbox: list[tuple[str, Letters]] = []
        self.willing = True
        self.boot(0.0)

    def clock(self, now: float) -> float:
        return self.begun + now * self.rate

    def boot(self, now: float) -> None:
        """The daemon starts: nothing is remembered, and an address that it finds is taken away."""
        self.boots += 1
        self.open_until = -inf
        self.holder = Holder()
        self.voter = Voter()
        self.electorate: Electorate | None = None
        self.seen = 0  # length of the history of managers that it has seen
        self.fresh = -inf
        self.look = now

    def answers(self, now: float) -> bool:
        return self.clock(now) < self.open_until


class World:
    """`step` it. `history`: every list of managers there was, and since when."""

    def __init__(self, names: Collection[str], managers: Collection[str], seed: int) -> None:
        self.now = 0.0
        self.rng = Random(seed)  # noqa: S311 - a simulation
        self.hosts = {name: Host(name, self.rng) for name in names}
        self.history: list[tuple[float, frozenset[str]]] = [(0.0, frozenset(managers))]
        self.cut: set[frozenset[str]] = set()  # pairs that do not reach each other
        self.loss = 0.0
        self.slow = 0.005  # seconds that a message may take
        self.watched = 0.3  # how likely a manager sees at a look what is new in the store
        self._flying: list[tuple[float, str, str, Letters]] = []

    @property
    def managers(self) -> frozenset[str]:
        return self.history[-1][1]

    def answering(self) -> list[str]:
        """Who answers for the address at this very moment, the dead excepted."""
        return [h.name for h in self.hosts.values() if h.answers(self.now) and not self.is_down(h.name)]

    def is_down(self, name: str) -> bool:
        return self.now < self.hosts[name].down_until

    def reach(self, one: str, other: str) -> bool:
        return one == other or not (frozenset((one, other)) in self.cut or self.is_down(one) or self.is_down(other))

    def quorate(self, name: str) -> bool:
        """Whether the store answers this host: a majority of managers reaches it."""
        return 2 * sum(self.reach(name, m) for m in self.managers) > len(self.managers)

    def change(self, managers: Collection[str]) -> None:
        self.history.append((self.now, frozenset(managers)))

    def power_cut(self, name: str, seconds: float) -> None:
        self.hosts[name].down_until = self.now + seconds
        self.hosts[name].open_until = -inf

    def restart(self, name: str) -> None:
        self.hosts[name].boot(self.now)

    def pause(self, name: str, seconds: float) -> None:
        self.hosts[name].paused_until = self.now + seconds

    def step(self) -> None:
        self.now += STEP
        due = [flight for flight in self._flying if flight[0] <= self.now]
        self._flying = [flight for flight in self._flying if flight[0] > self.now]
        for _, sender, to, letter in due:
            if self.reach(sender, to):
                self.hosts[to].inbox.append((sender, letter))  # waits in the socket while the daemon is paused
        for host in self.hosts.values():
            if self.is_down(host.name):
                host.inbox.clear()
                host.boots += host.boots % 2 == 0
                if self.now + STEP >= host.down_until:
                    host.boot(self.now)
            elif self.now >= host.paused_until:
                inbox, host.inbox = host.inbox, []
                for sender, letter in inbox:
                    self._take(host, sender, letter)
                if self.now >= host.look:
                    host.look = self.now + TICK
                    self._follow(host)
                    self._host(host)
                    self._manager(host)

    # ---- what a daemon does ----------------------------------------------------------------------------------------

    def _send(self, sender: str, to: str, letter: Letters) -> None:
        if sender == to:
            self.hosts[to].inbox.append((sender, letter))
        elif self.rng.random() >= self.loss:
            self._flying.append((self.now + self.rng.uniform(0, self.slow), sender, to, letter))

    def _host(self, host: Host) -> None:
        now = host.clock(self.now)
        if not host.willing:
            if host.open_until > -inf:
                host.open_until = -inf
                self._ask(host, leaving=True)
            return
        if now >= holder.until(host.holder):
            host.open_until = -inf
        elif holder.may_open(host.holder, now):
            host.open_until = now + OPEN
        if holder.due(host.holder, now, holding=now < host.open_until):
            self._ask(host)

    def _ask(self, host: Host, *, leaving: bool = False) -> None:
        now = host.clock(self.now)
        host.holder = holder.leave(host.holder, now) if leaving else holder.ask(host.holder, now)
        holding = now < host.open_until
        ask = Ask(
            address=ADDRESS,
            boot=f"{host.name}/{host.boots}",
            asked=host.holder.asked,
            again=holder.rate(host.holder, now, holding=holding),
            willing=not leaving,
            holding=holding,
        )
        for manager in sorted(self.managers):  # that a host may know them later than this only costs votes
            self._send(host.name, manager, ask)

    def _follow(self, host: Host) -> None:
        """A manager's view of the store: late by up to `FRESH`, and never back."""
        if self.quorate(host.name) and self.rng.random() < self.watched:
            was, host.fresh = host.fresh, host.clock(self.now)
            if host.electorate is None or host.fresh - was > FRESH:
                host.seen = len(self.history)
                host.electorate = electorate.begin(self.managers, host.fresh)
            while host.seen < len(self.history):
                host.electorate = electorate.follow(host.electorate, self.history[host.seen][1], host.fresh)
                host.seen += 1

    def _voting(self, host: Host) -> Electorate | None:
        now, found = host.clock(self.now), host.electorate
        if found is None or host.name not in found.members or now < found.votes_from or now > host.fresh + FRESH:
            return None
        return found

    def _view(self, host: Host, found: Electorate) -> View:
        missing = [name for name in self.hosts if not self.reach(name, host.name)]
        return View(address=ADDRESS, missing=missing, before=[m for m in found.members if m < host.name])

    def _manager(self, host: Host) -> None:
        found = self._voting(host)
        if found:
            now, view = host.clock(self.now), self._view(host, found)
            host.voter, whom = voter.call(host.voter, now, view)
            if whom:
                self._send(host.name, whom, Call(address=ADDRESS))
            chosen = "" if voter.holder(host.voter, now) else voter.choice(host.voter, now, view)
            for other in sorted(found.members - {host.name} if chosen else ()):
                self._send(host.name, other, Choice(address=ADDRESS, node=chosen))

    def _take(self, host: Host, sender: str, letter: Letters) -> None:
        now = host.clock(self.now)
        match letter:
            case Call() if host.willing:
                host.holder = holder.called(host.holder, now)
                if holder.due(host.holder, now, holding=False):
                    self._ask(host)
            case Vote(boot=boot, asked=asked, electorate=name, size=size) if boot == f"{host.name}/{host.boots}":
                host.holder = holder.voted(host.holder, sender, Counted(asked, name, size), now)
            case Choice(node=node):
                host.voter = voter.told(host.voter, sender, node, now)
            case Ask():
                found = self._voting(host)
                if found:
                    host.voter, given = voter.asked(host.voter, sender, letter, now, self._view(host, found))
                    if given:
                        self._send(host.name, sender, _vote(letter, found))
            case _:
                pass


def _vote(ask: Ask, found: Electorate) -> Vote:
    return Vote(address=ADDRESS, boot=ask.boot, asked=ask.asked, electorate=found.name, size=len(found.members))
