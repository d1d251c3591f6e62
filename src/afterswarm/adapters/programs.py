"""Running a program of the host to its end, and saying what it said when it failed."""

from __future__ import annotations

import errno
import subprocess


def run(*command: str, stdin: str = "") -> str:
    """Its output. Raises `OSError` when it is missing or fails. Blocks; a program that hangs is killed after 10 s."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=10, check=True)
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, f"the program {command[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, f"{' '.join(command)} did not end") from error
    except subprocess.CalledProcessError as error:
        raise OSError(errno.EIO, f"{' '.join(command)}: {error.stderr.strip()}") from error
    return done.stdout
