"""Carrying out a template: one `Run` for one text. It ends, since nothing but what is there can be ranged over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from afterswarm.core.template.faults import Fault, failed
from afterswarm.core.template.functions import FUNCTIONS, Misuse
from afterswarm.core.template.parse import Block, Operand, Pipe, Tree
from afterswarm.core.template.values import Fields, kind, shown, true

STEPS = 100_000  # blocks carried out, after which a template is taken for a trap
_NONE: Any = object()  # no value from an earlier command of the pipeline


class _Leave(Exception):
    """`break` and `continue`."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Run:
    """`functions` come besides Go's own."""

    def __init__(self, dot: object, functions: Mapping[str, Callable[..., Any]]) -> None:
        self._functions = {**FUNCTIONS, **functions}
        self._variables: list[tuple[str, Any]] = [("$", dot)]
        self._dot = dot
        self._left = STEPS
        self._text = ""
        self._out: list[str] = []

    def text(self, tree: Tree) -> str:
        self._text = tree.text
        self._blocks(tree.blocks, self._dot)
        return "".join(self._out)

    def _blocks(self, blocks: Iterable[Block], dot: Any) -> None:
        for block in blocks:
            self._left -= 1
            if self._left < 0:
                raise Fault("template: expansion: it does not come to an end")
            match block.kind:
                case "text":
                    self._out.append(block.text)
                case "break" | "continue":
                    raise _Leave(block.kind)
                case "action" if block.pipe:
                    value = self._given(block.pipe, dot)
                    if not block.pipe.variables:
                        self._out.append(shown(value))
                case _ if block.pipe:
                    self._control(block, block.pipe, dot)
                case _:
                    raise AssertionError(block.kind)

    def _control(self, block: Block, pipe: Pipe, dot: Any) -> None:
        known = len(self._variables)
        if block.kind == "range":
            self._range(block, pipe, dot)
        else:
            value = self._given(pipe, dot)
            if true(value):
                self._blocks(block.body, value if block.kind == "with" else dot)
            else:
                self._blocks(block.otherwise, dot)
        del self._variables[known:]

    def _range(self, block: Block, pipe: Pipe, dot: Any) -> None:
        value = self._pipe(pipe, dot)
        match value:
            case Fields() | str() | int() | float():
                last = pipe.commands[-1][0]
                raise failed(self._text, last.at, last.shown, f"range can't iterate over {shown(value)}")
            case dict():
                items: list[tuple[Any, Any]] = sorted(value.items())
            case _:
                items = list(enumerate(value or ()))
        if not items:
            self._blocks(block.otherwise, dot)
            return
        known = len(self._variables)
        for key, item in items:
            both = (item,) if len(pipe.variables) == 1 else (key, item)
            for name, given in zip(pipe.variables, both, strict=False):
                self._set(name, given, declares=pipe.declares)
            try:
                self._blocks(block.body, item)
            except _Leave as leave:
                if leave.word == "break":
                    break
            finally:
                del self._variables[known:]

    # ---- pipelines ---------------------------------------------------------------------------------------------

    def _given(self, pipe: Pipe, dot: Any) -> Any:
        value = self._pipe(pipe, dot)
        for name in pipe.variables:
            self._set(name, value, declares=pipe.declares)
        return value

    def _set(self, name: str, value: Any, *, declares: bool) -> None:
        if not declares:
            for n in reversed(range(len(self._variables))):
                if self._variables[n][0] == name:
                    self._variables[n] = (name, value)
                    return
        self._variables.append((name, value))

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value = _NONE
        for command in pipe.commands:
            value = self._command(command, value, dot)
        return value

    def _command(self, command: list[Operand], piped: Any, dot: Any) -> Any:
        first, *rest = command
        if first.kind == "function":
            return self._call(first, rest, piped, dot)
        if rest or piped is not _NONE:
            raise failed(self._text, first.at, first.shown, f"can't give argument to non-function {first.shown}")
        return self._operand(first, dot)

    def _call(self, function: Operand, rest: list[Operand], piped: Any, dot: Any) -> Any:
        name = str(function.value)
        if name in ("and", "or"):
            return self._logic(function, rest, piped, dot)
        values = [self._operand(one, dot) for one in rest] + ([] if piped is _NONE else [piped])
        try:
            return self._functions[name](*values)
        except Misuse as why:
            last = rest[-1] if rest else function
            shown_ = self._text[function.at : last.at + len(last.shown)]
            raise failed(self._text, function.at, shown_, f"error calling {name}: {why}") from None
        except TypeError:
            raise failed(self._text, function.at, name, f"wrong number of args for {name}: got {len(values)}") from None

    def _logic(self, function: Operand, rest: list[Operand], piped: Any, dot: Any) -> Any:
        """The first value that decides, or the last one; what comes after it is not looked at."""
        value: Any = _NONE
        for one in rest:
            value = self._operand(one, dot)
            if true(value) == (function.value == "or"):
                return value
        value = value if piped is _NONE else piped
        if value is _NONE:
            raise failed(self._text, function.at, function.shown, f"wrong number of args for {function.value}: got 0")
        return value

    def _operand(self, operand: Operand, dot: Any) -> Any:
        match operand.kind:
            case "constant":
                return operand.value
            case "dot":
                value = dot
            case "variable":
                value = next(v for name, v in reversed(self._variables) if name == operand.value)
            case "function":
                value = self._call(operand, [], _NONE, dot)
            case _:
                assert isinstance(operand.value, Pipe)  # noqa: S101 - a group always is one
                value = self._pipe(operand.value, dot)
        for name in operand.fields:
            value = self._field(operand, value, name)
        return value

    def _field(self, operand: Operand, value: Any, name: str) -> Any:
        if isinstance(value, dict) and name in value:
            return value[name]
        if isinstance(value, dict) and not isinstance(value, Fields):
            words = f'map has no entry for key "{name}"'
        else:
            words = f"can't evaluate field {name} in type {kind(value)}"
        raise failed(self._text, operand.at, operand.shown, words)
