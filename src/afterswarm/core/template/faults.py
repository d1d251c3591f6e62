"""What is wrong with a template, in Go's words."""

from __future__ import annotations


class Fault(Exception):
    """It cannot be read or carried out."""


def unreadable(text: str, at: int, words: str) -> Fault:
    return Fault(f"template: expansion:{_line(text, at)}: {words}")


def failed(text: str, at: int, node: str, words: str) -> Fault:
    column = at - (text.rfind("\n", 0, at) + 1)
    return Fault(f'template: expansion:{_line(text, at)}:{column}: executing "expansion" at <{node}>: {words}')


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
