"""Pieces of a template as a tree. What is not of the language is refused here, before anything is carried out."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import msgspec

from afterswarm.core.template.faults import Fault, unreadable
from afterswarm.core.template.functions import NAMES
from afterswarm.core.template.scan import Token, pieces

DEEP = 40  # brackets and blocks within one another
_CONSTANTS = {"true": True, "false": False, "nil": None}
_LEFT_OUT = ("define", "template", "block")


class Operand(msgspec.Struct, frozen=True):
    """`kind`: constant, dot, variable, function, group; `fields` of its value; `at` and `shown` are for errors."""

    kind: str
    value: object = None
    fields: tuple[str, ...] = ()
    at: int = 0
    shown: str = ""


class Pipe(msgspec.Struct, frozen=True):
    commands: list[list[Operand]]
    variables: tuple[str, ...] = ()  # that are given its value
    declares: bool = False


class Block(msgspec.Struct, frozen=True):
    """`kind`: text, action, if, with, range, break, continue."""

    kind: str
    text: str = ""
    pipe: Pipe | None = None
    body: list[Block] = []
    otherwise: list[Block] = []


class Tree(msgspec.Struct, frozen=True):
    text: str
    blocks: list[Block]


def parsed(text: str, functions: frozenset[str]) -> Tree:
    """Raises `Fault`. `functions` are known besides Go's own."""
    parser = _Parser(text, functions | NAMES)
    blocks, ended = parser.blocks(0, in_range=False)
    if ended:
        raise unreadable(text, parser.at, f"unexpected {{{{{ended}}}}}")
    return Tree(text, blocks)


class _Parser:
    def __init__(self, text: str, functions: frozenset[str]) -> None:
        self.text = text
        self.at = 0
        self._functions = functions
        self._pieces = pieces(text)
        self._variables = ["$"]

    def fault(self, words: str, at: int | None = None) -> Fault:
        return unreadable(self.text, self.at if at is None else at, words)

    def blocks(self, depth: int, *, in_range: bool) -> tuple[list[Block], str]:
        """Up to `end`, `else` (with what follows it) or, as "", the end of the text."""
        if depth > DEEP:
            raise self.fault("too deeply nested")
        found: list[Block] = []
        for piece in self._pieces:
            if piece.tokens is None:
                if piece.text:
                    found.append(Block("text", text=piece.text))
                continue
            self.at = piece.at
            if not piece.tokens:
                raise self.fault("missing value for command")
            first = piece.tokens[0]
            word = first.text if first.kind == "word" else ""
            if word in ("end", "else"):
                self._rest = piece.tokens[1:]
                if word == "end" and self._rest:
                    raise self.fault(f"unexpected {self._rest[0].text!r} in end")
                return found, word
            if word in ("break", "continue") and len(piece.tokens) == 1:
                if not in_range:
                    raise self.fault(f"{{{{{word}}}}} outside {{{{range}}}}")
                found.append(Block(word))
            elif word in ("if", "with", "range"):
                found.append(self._control(word, piece.tokens[1:], depth, in_range=in_range))
            elif word in _LEFT_OUT:
                raise self.fault(f"{{{{{word}}}}} is not available here")
            else:
                found.append(Block("action", pipe=self._whole(piece.tokens, "command")))
        return found, ""

    def _control(self, word: str, tokens: list[Token], depth: int, *, in_range: bool) -> Block:
        known = len(self._variables)
        pipe = self._whole(tokens, word)
        body, ended = self.blocks(depth + 1, in_range=in_range or word == "range")
        otherwise: list[Block] = []
        if ended == "else" and self._rest:  # else if, else with: ends with this block's own end
            again = self._rest[0].text
            if again != word or word == "range":
                raise self.fault(f"unexpected {again!r} in else")
            otherwise = [self._control(again, self._rest[1:], depth + 1, in_range=in_range)]
        else:
            if ended == "else":
                otherwise, ended = self.blocks(depth + 1, in_range=in_range)
            if ended == "else":
                raise self.fault("expected end; found {{else}}")
            if ended != "end":
                raise self.fault("unexpected EOF")
        del self._variables[known:]
        return Block(word, pipe=pipe, body=body, otherwise=otherwise)

    # ---- inside an action --------------------------------------------------------------------------------------

    def _whole(self, tokens: list[Token], context: str) -> Pipe:
        rest = _Tokens(tokens)
        variables, declares = self._targets(rest, context)
        commands = self._commands(rest, context, 0)
        if rest.now:
            raise self.fault(f"unexpected {rest.now.text!r} in {context}")
        if declares:
            self._variables += variables
        return Pipe(commands, variables, declares)

    def _targets(self, rest: _Tokens, context: str) -> tuple[tuple[str, ...], bool]:
        words = [t.text for t in rest.tokens[:4]]
        kinds = [t.kind for t in rest.tokens[:4]]
        if kinds[:2] == ["variable", "mark"] and words[1] in (":=", "="):
            count, mark = 1, words[1]
        elif context == "range" and kinds == ["variable", "mark", "variable", "mark"] and words[1] == ",":
            count, mark = 3, words[3]
        else:
            return (), False
        names = tuple(words[0:count:2])
        if mark == "=":
            for name in names:
                self._known(name)
        for _ in range(count + 1):
            rest.take()
        return names, mark == ":="

    def _known(self, name: str) -> None:
        if name not in self._variables:
            raise self.fault(f'undefined variable "{name}"')

    def _commands(self, rest: _Tokens, context: str, depth: int) -> list[list[Operand]]:
        if depth > DEEP:
            raise self.fault("too deeply nested")
        commands: list[list[Operand]] = [[]]
        while rest.now and rest.now.text != ")":
            if rest.now.kind == "mark" and rest.now.text == "|":
                rest.take()
                if not commands[-1]:
                    break
                commands.append([])
                continue
            commands[-1].append(self._operand(rest, depth))
        if not commands[-1]:
            raise self.fault(f"missing value for {context}")
        for command in commands:
            if command[0].kind == "constant" and command[0].value is None:
                raise self.fault("nil is not a command", command[0].at)
        for command in commands[1:]:
            if command[0].kind == "constant":
                raise self.fault("non executable command in pipeline stage 2", command[0].at)
        return commands

    def _operand(self, rest: _Tokens, depth: int) -> Operand:
        first = rest.take()
        kind, value = self._value(first, rest, depth)
        fields: list[str] = [first.text[1:]] if first.kind == "field" else []
        while rest.now and rest.now.kind == "field" and not rest.now.apart:
            fields.append(rest.take().text[1:])
        if fields and kind in ("constant", "function"):
            raise self.fault(f"unexpected . after term {first.text!r}", first.at)
        last = rest.last
        shown = self.text[first.at : last.at + len(last.text)]
        return Operand(kind, value, tuple(fields), first.at, shown)

    def _value(self, token: Token, rest: _Tokens, depth: int) -> tuple[str, object]:
        match token.kind:
            case "field":
                return "dot", None
            case "variable":
                self._known(token.text)
                return "variable", token.text
            case "string" | "number":
                return "constant", self._constant(token)
            case "word" if token.text in _CONSTANTS:
                return "constant", _CONSTANTS[token.text]
            case "word":
                if token.text not in self._functions:
                    raise self.fault(f'function "{token.text}" not defined', token.at)
                return "function", token.text
            case _ if token.text == ".":
                return "dot", None
            case _ if token.text == "(":
                commands = self._commands(rest, "parenthesized pipeline", depth + 1)
                if rest.now is None:
                    raise self.fault("unclosed left paren")
                rest.take()
                return "group", Pipe(commands)
            case _:
                raise self.fault(f'unexpected "{token.text}" in operand', token.at)

    def _constant(self, token: Token) -> object:
        if token.text.startswith("`"):
            return token.text[1:-1]
        try:
            value = ast.literal_eval(token.text.lstrip("+"))
        except (ValueError, SyntaxError):
            what = "number syntax" if token.kind == "number" else "quoted string"
            raise self.fault(f"bad {what}: {token.text!r}", token.at) from None
        return ord(value) if token.text.startswith("'") and len(value) == 1 else value


class _Tokens:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self._next = 0

    @property
    def now(self) -> Token | None:
        return self.tokens[self._next] if self._next < len(self.tokens) else None

    @property
    def last(self) -> Token:
        return self.tokens[self._next - 1]

    def take(self) -> Token:
        self._next += 1
        return self.tokens[self._next - 1]

    def __iter__(self) -> Iterator[Token]:
        return iter(self.tokens[self._next :])
