"""Go's text/template, as far as services and templated configs use it: `expand` is the whole interface.

Everything of the language but `define`, `template`, `block`, methods and ranging over numbers. Errors have Go's form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from afterswarm.core.template.evaluate import Run
from afterswarm.core.template.faults import Fault
from afterswarm.core.template.parse import parsed

__all__ = ["Fault", "expand"]

Function = Callable[..., Any]


def expand(text: str, dot: object, functions: Mapping[str, Function] | None = None) -> str:
    """`text` with its actions replaced. Raises `Fault`."""
    if "{{" not in text:
        return text
    own = functions or {}
    return Run(dot, own).text(parsed(text, frozenset(own)))
