"""A table of nftables as a value, and the way from one to another: text of one transaction, the shortest there is.

`shape` is what hardly ever changes: sets and maps without their elements, chains with their rules. What comes and goes
with services is in `parts`, one for each: elements of the sets and maps, and chains that elements lead to. A part that
has not changed is the same object in the next table (`Part.source` tells), so that the way from one to the other is
found by looking at those that have.

Elements of two parts in one map never have the same key; in the sets named in `shared`, and among chains, the same may
be in several parts, and goes with the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

TABLE = "inet afterswarm"
_FORMER = "ip afterswarm"  # of earlier daemons


Piece = tuple[list[str], dict[str, dict[str, str]]]
"""Of a shape, and the elements that go with it."""


class Part(msgspec.Struct, frozen=True, eq=False):
    """`elements`: set or map -> key -> value ("" in a set). `chains`: name -> rules, each after those it leads to."""

    elements: Mapping[str, Mapping[str, str]] = {}
    chains: Mapping[str, Sequence[str]] = {}
    source: Any = None  # what it was made from


class Ruleset(msgspec.Struct, frozen=True, eq=False):
    """`initially`: elements of sets that live by packets. They are put there when the whole table is written."""

    shape: str = ""
    parts: Mapping[str, Part] = {}
    shared: tuple[str, ...] = ()
    initially: Mapping[str, Mapping[str, str]] = {}
    context: Any = None  # what all parts were made with

    def full(self) -> str:
        """The transaction that makes our table this one, whatever it was."""
        gone = "".join(f"table {name}\ndelete table {name}\n" for name in (_FORMER, TABLE))
        if not self.shape:
            return gone
        chains = {name: rules for part in self.parts.values() for name, rules in part.chains.items()}
        elements: dict[str, dict[str, str]] = {name: dict(found) for name, found in self.initially.items()}
        for part in self.parts.values():
            for name, found in part.elements.items():
                elements.setdefault(name, {}).update(found)
        made = "".join(chain(name, *rules) for name, rules in chains.items())
        filled = "".join(_elements("add", name, _pairs(found)) for name, found in sorted(elements.items()))
        return f"{gone}table {TABLE} {{\n{self.shape}{made}}}\n{filled}"

    def since(self, old: Ruleset) -> str | None:
        """The transaction that makes a table that is `old` this one; "" when there is nothing to do.

        `None`: the whole table has to be written, since its shape is another.
        """
        if self.shape != old.shape:
            return None
        changed = {key: None for key, part in self.parts.items() if not _same(old.parts.get(key), part)}
        left = [key for key in old.parts if key in changed or key not in self.parts]
        if not changed and not left:
            return ""
        kept = [part for key, part in self.parts.items() if key not in changed]
        new, was = [self.parts[key] for key in changed], [old.parts[key] for key in left]
        before, after = _chains(was), _chains(new)
        new_chains = {name: rules for name, rules in after.items() if before.get(name) != rules}
        held = {name for part in kept for name in part.chains} if new_chains or before.keys() - after.keys() else set()
        lines = []
        for name, rules in new_chains.items():
            if name in held:  # another part has it already
                continue
            lines.append(f"{'flush' if name in before else 'add'} chain {TABLE} {name}\n")
            lines += [f"add rule {TABLE} {name} {rule}\n" for rule in rules]
        gone, come = self._moved(kept, was, new)
        lines += [_elements("delete", name, sorted(keys)) for name, keys in sorted(gone.items())]
        lines += [_elements("add", name, _pairs(found)) for name, found in sorted(come.items())]
        lines += [f"delete chain {TABLE} {name}\n" for name in reversed(before) if name not in after.keys() | held]
        return "".join(lines)

    def _moved(
        self, kept: Sequence[Part], was: Sequence[Part], new: Sequence[Part]
    ) -> tuple[dict[str, AbstractSet[str]], dict[str, dict[str, str]]]:
        """Keys to take out and elements to put in, by set. One with another value is taken out first."""
        gone: dict[str, AbstractSet[str]] = {}
        come: dict[str, dict[str, str]] = {}
        before, after = _together(was), _together(new)
        for name in before.keys() | after.keys():
            there, wanted = before.get(name, {}), after.get(name, {})
            out = {key for key, value in there.items() if wanted.get(key) != value}
            into = {key: value for key, value in wanted.items() if there.get(key) != value}
            if name in self.shared and (out or into):
                others = set().union(*(part.elements.get(name, ()) for part in kept))
                out -= others
                into = {key: value for key, value in into.items() if key not in others}
            if out:
                gone[name] = out
            if into:
                come[name] = into
        return gone, come


NOTHING = Ruleset()
"""Takes our table away."""


def chain(name: str, *rules: str) -> str:
    return f"\tchain {name} {{\n" + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}\n"


def collection(name: str, head: str, elements: Sequence[str] = (), *, kind: str = "set") -> str:
    """A set or a map."""
    body = f"\t\telements = {{ {', '.join(elements)} }}\n" if elements else ""
    return f"\t{kind} {name} {{\n\t\t{head}\n{body}\t}}\n"


def _same(old: Part | None, new: Part) -> bool:
    return old is new or (old is not None and old.elements == new.elements and old.chains == new.chains)


def _chains(parts: Iterable[Part]) -> dict[str, Sequence[str]]:
    return {name: rules for each in parts for name, rules in each.chains.items()}


def _together(parts: Iterable[Part]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for each in parts:
        for name, elements in each.elements.items():
            found.setdefault(name, {}).update(elements)
    return found


def _pairs(elements: Mapping[str, str]) -> list[str]:
    return [f"{key} : {value}" if value else key for key, value in sorted(elements.items())]


def _elements(verb: str, name: str, elements: Sequence[str]) -> str:
    return f"{verb} element {TABLE} {name} {{ {', '.join(elements)} }}\n" if elements else ""
