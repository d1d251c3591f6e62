"""A manager and one floating address: whom it votes for.

A promise is what it has said and must keep; everything else here is about agreeing with the other managers, without
waiting for them. All choose by the same order among the hosts that they hear, and prefer who says that it holds the
address already. Where that is not enough, because they do not hear the same, they follow the first manager that they
hear, and that one gives up a host that comes to nothing.

Moments are on this manager's own clock, but for `asked`, which is on that of the host that asked.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

import msgspec
from msgspec.structs import replace

from afterswarm.core.floating import PROMISE
from afterswarm.core.floating.place import order
from afterswarm.model.floating import Ask

PATIENCE = 0.5  # seconds that a host may have our vote without holding the address
ANSWER = 0.3  # seconds that a host which was called may take to ask
SPURNED = 5.0  # seconds that a host comes last after it came to nothing
MISSING = 0.35  # seconds without a beat after which only what a host asks itself shows that it is there
SAID = 0.35  # seconds that another manager's choice counts


class View(msgspec.Struct, frozen=True):
    """What a manager knows besides."""

    address: str
    missing: Collection[str] = ()  # nodes whose beats do not come
    before: Collection[str] = ()  # managers before this one in the order of all


class Asker(msgspec.Struct, frozen=True):
    ask: Ask
    at: float


class Promise(msgspec.Struct, frozen=True):
    """To vote for nobody else until `until`."""

    node: str
    boot: str
    asked: float  # the newest question that was answered
    until: float
    shown: float  # when the host last showed that it holds the address, or when it first got our vote


class Voter(msgspec.Struct, frozen=True):
    askers: dict[str, Asker] = {}  # by node
    promise: Promise | None = None
    said: dict[str, tuple[str, float]] = {}  # manager -> its choice, and when
    spurned: dict[str, float] = {}  # node -> until when
    calling: tuple[str, float] = ("", -inf)  # whom, since when


def bound(me: Voter, now: float) -> Promise | None:
    """The promise that holds now."""
    return me.promise if me.promise and now < me.promise.until else None


def holder(me: Voter, now: float) -> str:
    """Who has the address, as far as this manager can tell; "" for nobody."""
    promise = bound(me, now)
    shown = promise and me.askers.get(promise.node)
    return promise.node if promise and shown and shown.ask.holding else ""


def told(me: Voter, manager: str, node: str, now: float) -> Voter:
    """Another manager's choice."""
    return replace(me, said={**me.said, manager: (node, now)})


def choice(me: Voter, now: float, view: View) -> str:
    """Whom it would vote for if it were free; "" for nobody."""
    return _led(me, now, view) or _own(me, now, view)


def asked(me: Voter, node: str, ask: Ask, now: float, view: View) -> tuple[Voter, bool]:
    """A host asks, or says good-bye; and whether it gets the vote."""
    before = me.askers.get(node)
    if before and before.ask.boot == ask.boot and ask.asked <= before.ask.asked:
        return me, False  # overtaken on its way
    me = replace(me, askers={**me.askers, node: Asker(ask, now)})
    promise = bound(me, now)
    its = promise is not None and (promise.node, promise.boot) == (node, ask.boot)
    if not ask.willing:
        freed = promise is not None and its and ask.asked > promise.asked
        return (replace(me, promise=None) if freed else me), False
    if ask.holding and node in me.spurned:
        me = replace(me, spurned={n: end for n, end in me.spurned.items() if n != node})
    if promise is not None and its and not ask.holding and now - promise.shown > PATIENCE:
        if not _led(me, now, view):
            me = replace(me, spurned={**me.spurned, node: now + SPURNED})
        its = choice(me, now, view) == node  # nobody better: go on
    if not its and (promise is not None or choice(me, now, view) != node):
        return me, False
    shown = now if ask.holding or promise is None else promise.shown
    made = Promise(node=node, boot=ask.boot, asked=ask.asked, until=now + PROMISE, shown=shown)
    return replace(me, promise=made, calling=("", -inf)), True


def call(me: Voter, now: float, view: View) -> tuple[Voter, str]:
    """Whom to call, now that no promise binds; "" for nobody. To be asked again and again."""
    if bound(me, now):
        return me, ""
    node = choice(me, now, view)
    whom, since = me.calling
    if node and node == whom and now - since > ANSWER:
        me = replace(me, spurned={**me.spurned, node: now + SPURNED})
        node, whom = choice(me, now, view), ""
    return replace(me, calling=(node, since if node == whom else now)), node


def _led(me: Voter, now: float, view: View) -> str:
    """The choice of the first manager before this one that is heard; "" when this one is the first itself."""
    said = sorted((m, node) for m, (node, at) in me.said.items() if m in view.before and now - at <= SAID)
    return said[0][1] if said else ""


def _own(me: Voter, now: float, view: View) -> str:
    def here(node: str, asker: Asker) -> bool:
        age = now - asker.at
        within = MISSING if node in view.missing else max(PATIENCE, 2.5 * asker.ask.again)
        return asker.ask.willing and age <= within

    def rank(node: str) -> tuple[bool, bool, bool, bytes]:
        ask = me.askers[node].ask
        return now < me.spurned.get(node, -inf), not ask.holding, ask.last, order(view.address, node)

    return min((node for node, asker in me.askers.items() if here(node, asker)), key=rank, default="")
