"""A template's text in pieces: literal text, and actions as lists of tokens. Trim markers and comments end here."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from afterswarm.core.template.faults import unreadable

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      |(?P<comment>/\*.*?\*/)
      |(?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`|'(?:[^'\\\n]|\\.[^']*)')
      |(?P<number>[+-]?\d[0-9a-fA-FxXoO_.]*)
      |(?P<field>\.[^\W\d]\w*)
      |(?P<variable>\$\w*)
      |(?P<word>[^\W\d]\w*)
      |(?P<end>-?\}\})
      |(?P<mark>:=|[=|(),.])""",
    re.VERBOSE | re.DOTALL,
)


class Token(msgspec.Struct, frozen=True):
    kind: str  # string, number, field, variable, word, mark
    text: str
    at: int
    apart: bool  # white space before it


class Piece(msgspec.Struct, frozen=True):
    """Literal text (`tokens` is `None`) or an action."""

    text: str = ""
    tokens: list[Token] | None = None
    at: int = 0


def pieces(text: str) -> Iterator[Piece]:
    """Raises `Fault` for what cannot be in an action."""
    at = 0
    trim = False
    while True:
        opening = text.find("{{", at)
        literal = text[at:] if opening < 0 else text[at:opening]
        if trim:
            literal = literal.lstrip(" \t\r\n")
        if opening < 0:
            yield Piece(literal)
            return
        begin = opening + 2
        if re.match(r"-\s", text[begin : begin + 2]):
            literal = literal.rstrip(" \t\r\n")
            begin += 1
        yield Piece(literal)
        tokens, at, trim = _action(text, opening, begin)
        if tokens is not None:
            yield Piece(tokens=tokens, at=opening)


def _action(text: str, opening: int, begin: int) -> tuple[list[Token] | None, int, bool]:
    """Its tokens (`None` for a comment), where it ends, and whether what follows is trimmed."""
    tokens: list[Token] = []
    comments = 0
    apart = False
    at = begin
    while True:
        found = _TOKEN.match(text, at)
        if found is None:
            if at >= len(text):
                raise unreadable(text, opening, "unclosed action")
            raise unreadable(text, at, f"unexpected {_quoted(text[at])} in operand")
        kind, word = found.lastgroup or "", found[0]
        at = found.end()
        match kind:
            case "space":
                apart = True
                continue
            case "comment":
                comments += 1
            case "end" if word == "}}" or apart:
                if comments and not tokens:
                    return None, at, word != "}}"
                return tokens, at, word != "}}"
            case "end":
                raise unreadable(text, at, 'unexpected "-" in operand')
            case _:
                tokens.append(Token(kind, word, found.start(), apart))
        apart = False


def _quoted(character: str) -> str:
    return f'"{character}"' if character != '"' else "unterminated quoted string"
