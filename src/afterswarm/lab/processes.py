"""Processes that outlive the command that started them, and are nobody's zombies afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

from afterswarm.lab.cable import LabError

# The shell ends at once, so that what it leaves behind belongs to the machine's first process.
_SCRIPT = 'log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 & echo $!'


def start(argv: list[str], log: Path) -> int:
    """Start a program in a session of its own, its words in `log`; returns its pid."""
    done = subprocess.run(
        ["sh", "-c", _SCRIPT, "sh", str(log), *argv], capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode:
        raise LabError(f"{argv[0]} cannot be started: {done.stderr.strip()}")
    return int(done.stdout)


def is_running(pid: int, part: str) -> bool:
    """Whether the process is there, has not ended, and has `part` in its command line: numbers are given again."""
    here = Path(f"/proc/{pid}")
    try:
        command = here.joinpath("cmdline").read_bytes()
        if command:
            return part.encode() in command
        # Empty of one that has ended, but also of one that is just becoming another program.
        state = here.joinpath("stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
