"""Whether our nftables tables are still what was written: a number for each chain, set and map, asked over netlink.

A listing in words would do as well, but costs libnftables' memory and much time with many services. What changes by
itself is left out: handles, how often something is used, and the elements of sets that the kernel fills.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from afterswarm.adapters.kernel import nfnetlink
from afterswarm.core.dataplane.ruleset import TABLE

Print = dict[str, int]  # "chain mesh" -> a number that stands for all of it

_TABLES = 10  # linux/netfilter/nf_tables.h, as the rest
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENT, _GET_GENERATION = 1, 4, 7, 10, 13, 16
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_NAME = TABLE.split()[1]
_OF_TABLE, _GENERATION_ID = 1, 1
_CHAIN_NAME, _CHAIN_KEPT = 3, (4, 5, 7, 10)  # hook, policy, type, flags
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_SET_NAME, _SET_FLAGS, _SET_KEPT = 2, 3, (3, 4, 5, 6, 7, 11)  # flags, types and lengths of key and data, timeout
_FILLED = 0x10 | 0x20  # flags of sets with timeouts, or that rules add to
_ELEMENTS, _ELEMENT = 3, 1


def generation(kernel: nfnetlink.Conversation) -> int:
    """Grows by one with every transaction in this namespace."""
    for answer in kernel.ask(nfnetlink.message(_TABLES, _GET_GENERATION, 0)):
        for kind, value in nfnetlink.attributes(answer):
            if kind == _GENERATION_ID:
                return int(struct.unpack("!I", value)[0])
    raise OSError("the kernel does not tell its nftables generation")


def look(kernel: nfnetlink.Conversation) -> tuple[int, Print] | None:
    """Our tables in this namespace and the generation they are of; `None` when others write all the time."""
    for _ in range(3):
        before = generation(kernel)
        try:
            found = _all(kernel)
        except FileNotFoundError:  # it went while we looked
            continue
        if generation(kernel) == before:
            return before, found
    return None


def differences(before: Print, now: Print) -> list[str]:
    """In words, in order; nothing when all is as it was."""
    if before and not now:
        return [f"table {_NAME} was gone"]
    found = [f"{name} was gone" for name in before.keys() - now.keys()]
    found += [f"{name} was not ours" for name in now.keys() - before.keys()]
    found += [f"{name} was changed" for name in before.keys() & now.keys() if before[name] != now[name]]
    return sorted(found)


def _all(kernel: nfnetlink.Conversation) -> Print:
    found: Print = {}
    for family, word in _FAMILIES.items():
        if _there(kernel, family):
            found |= {f"{word} {name}": value for name, value in _table(kernel, family).items()}
    return found


def _there(kernel: nfnetlink.Conversation, family: int) -> bool:
    try:
        return any(
            True for _ in kernel.ask(nfnetlink.message(_TABLES, _GET_TABLE, 0, family, _named(_OF_TABLE, _NAME)))
        )
    except FileNotFoundError:
        return False


def _table(kernel: nfnetlink.Conversation, family: int) -> Print:
    ours = _named(_OF_TABLE, _NAME)
    chains: dict[str, int] = {}
    for answer in _dump(kernel, _GET_CHAIN, family, ours):
        if _text(answer[_OF_TABLE]) == _NAME:  # old kernels do not choose
            chains[_text(answer[_CHAIN_NAME])] = _number(answer, _CHAIN_KEPT)
    for answer in _dump(kernel, _GET_RULE, family, ours):
        if _text(answer[_OF_TABLE]) == _NAME:
            chain = _text(answer[_RULE_CHAIN])
            chains[chain] = hash((chains.get(chain), answer.get(_RULE_EXPRESSIONS)))
    found = {f"chain {name}": value for name, value in chains.items()}
    for answer in list(_dump(kernel, _GET_SET, family, ours)):
        name, flags = _text(answer[_SET_NAME]), int.from_bytes(answer.get(_SET_FLAGS, b"\0"))
        content = 0 if flags & _FILLED else _content(kernel, family, ours + _named(_SET_NAME, name))
        found[f"set {name}"] = hash((_number(answer, _SET_KEPT), content))
    return found


def _content(kernel: nfnetlink.Conversation, family: int, which: bytes) -> int:
    """The same in whatever order the elements come."""
    total = 0
    for answer in _dump(kernel, _GET_ELEMENT, family, which):
        for kind, element in nfnetlink.attributes(answer.get(_ELEMENTS, b"")):
            if kind == _ELEMENT:
                total += hash(element)
    return total


def _dump(kernel: nfnetlink.Conversation, kind: int, family: int, attributes: bytes) -> Iterator[dict[int, bytes]]:
    for answer in kernel.ask(nfnetlink.message(_TABLES, kind, nfnetlink.DUMP, family, attributes)):
        yield dict(nfnetlink.attributes(answer))


def _number(answer: Mapping[int, bytes], kinds: tuple[int, ...]) -> int:
    return hash(tuple(answer.get(kind) for kind in kinds))


def _named(kind: int, name: str) -> bytes:
    return nfnetlink.attribute(kind, name.encode() + b"\0")


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()
