"""Placement constraints: `node.labels.zone == east`.

SwarmKit's grammar and words (`manager/constraint/constraint.go`): one operator, keys of nodes in any case, values
compared without regard to case, names of labels with. A label that is not there has the value "".
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address, ip_network

import msgspec

from afterswarm.model.node import Description, Node, NodeReport
from afterswarm.model.refused import Refused

_OPERATORS = ("==", "!=")
_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)
_NODE_LABEL = "node.labels."
_ENGINE_LABEL = "engine.labels."


class Constraint(msgspec.Struct, frozen=True):
    key: str
    equal: bool  # "==" or "!="
    value: str


def parse(text: str) -> Constraint:
    """Raises `Refused` (400) when it is not a constraint."""
    operator = next((o for o in _OPERATORS if o in text), None)
    if operator is None:
        raise _invalid(f"constraint expected one operator from {', '.join(_OPERATORS)}")
    key, _, value = (part.strip() for part in text.partition(operator))
    if not _KEY.fullmatch(key):
        raise _invalid(f"key '{key}' is invalid")
    if not _VALUE.fullmatch(value):
        raise _invalid(f"value '{value}' is invalid")
    return Constraint(key, operator == "==", value)


def unmet(constraints: list[str], node: Node, report: NodeReport | None) -> str | None:
    """The first constraint that the node does not meet; `None` when it meets all.

    One that cannot be understood is met by no node.
    """
    return next((text for text in constraints if not _met(text, node, report)), None)


def _met(text: str, node: Node, report: NodeReport | None) -> bool:
    try:
        constraint = _parsed(text)
    except Refused:
        return False
    key = constraint.key.lower()
    description = report.description if report else Description()
    if key == "node.ip":
        return _ip_met(constraint, report.address if report else "")
    if key == "node.id":
        actual = node.id
    elif key == "node.hostname":
        actual = description.hostname
    elif key == "node.role":
        actual = node.role.value
    elif key == "node.platform.os":
        actual = description.platform.os
    elif key == "node.platform.arch":
        actual = description.platform.architecture
    elif key.startswith(_NODE_LABEL) and len(key) > len(_NODE_LABEL):
        actual = node.spec.labels.get(constraint.key[len(_NODE_LABEL) :], "")
    elif key.startswith(_ENGINE_LABEL) and len(key) > len(_ENGINE_LABEL):
        actual = description.engine.labels.get(constraint.key[len(_ENGINE_LABEL) :], "")
    else:
        return False
    return (actual.casefold() == constraint.value.casefold()) is constraint.equal


def _ip_met(constraint: Constraint, address: str) -> bool:
    try:
        wanted = ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    try:
        inside = ip_address(address) in wanted
    except ValueError:
        inside = False
    return inside is constraint.equal


_parsed = lru_cache(maxsize=1024)(parse)


def _invalid(words: str) -> Refused:
    return Refused(400, f"rpc error: code = InvalidArgument desc = {words}")
