"""What a deployment says: lines as they come, and one line per service that is kept up to date on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from afterswarm.stack.progress import Look, Stage

_SIGNS = {Stage.WAITING: "…", Stage.DONE: "ok", Stage.FAILED: "FAILED"}


class Voice:
    """`quiet`: nothing but warnings and errors."""

    def __init__(self, out: TextIO, err: TextIO, *, quiet: bool = False) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._shown: dict[str, str] = {}
        self._terminal = out.isatty()

    def say(self, words: str) -> None:
        if not self._quiet:
            print(words, file=self._out, flush=True)

    def warn(self, words: str) -> None:
        print(f"warning: {words}", file=self._err, flush=True)

    def error(self, words: str) -> None:
        print(f"error: {words}", file=self._err, flush=True)

    def progress(self, looks: Sequence[Look]) -> None:
        """On a terminal all lines are written over; elsewhere only those that are new."""
        if self._quiet:
            return
        lines = {look.name: f"{_SIGNS[look.stage]:<6} {look}" for look in looks}
        if self._terminal:
            if self._shown:
                self._out.write(f"\x1b[{len(self._shown)}A")
            self._out.writelines(f"\x1b[2K{line}\n" for line in lines.values())
            self._out.flush()
        else:
            for name, line in lines.items():
                if self._shown.get(name) != line:
                    self.say(line)
        self._shown = lines
