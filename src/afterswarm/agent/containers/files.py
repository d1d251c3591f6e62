"""Secrets and configs as files that containers see: in memory of this host, never on its disk.

A tmpfs of our own holds one directory per task; the engine mounts its files read-only into the container. It stays
mounted while the daemon is down, since running containers look into it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

from afterswarm.core.host.container_config import Place, spec_of
from afterswarm.core.host.payload import Held, expanded
from afterswarm.model.secret import payload_id
from afterswarm.model.service import FileTarget
from afterswarm.model.task import Task


class FilesRefused(Exception):
    """The files of a task cannot be made, and why."""


class NotHere(Exception):
    """A secret or config of a task has not reached this host yet."""


def mount_tmpfs(path: Path) -> None:
    """Put a tmpfs at `path` unless there is one. Raises `FilesRefused`."""
    if path.is_mount():
        return
    options = "mode=0700,nosuid,nodev"  # not noexec: a config may be a script
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "afterswarm", str(path)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        words = made.stderr.strip() or f"mount ended with {made.returncode}"
        raise FilesRefused(
            f"no memory file system for secrets at {path} ({words}); they must not be written to a disk. "
            "Run the daemon as root with CAP_SYS_ADMIN."
        )


class Files:
    """The files of all tasks under `run_dir`/secrets. The tmpfs is made when the first file is needed."""

    def __init__(self, run_dir: Path, *, mount: Callable[[Path], None] = mount_tmpfs) -> None:
        self.root = run_dir / "secrets"
        self._mount = mount

    def write(self, task: Task, secrets: Held, configs: Held, *, place: Place) -> dict[str, str]:
        """Make the files of `task`: target in the container -> path here.

        Raises `NotHere`, `FilesRefused`, and `Refused` for a template that cannot be carried out.
        """
        wanted = _wanted(task)
        missing = [name for kind, id_, name, _ in wanted if id_ not in (secrets if kind == "secret" else configs)]
        if missing:
            raise NotHere(f"waiting for {', '.join(missing)}")
        if not wanted:
            return {}
        made: dict[str, str] = {}
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._mount(self.root)
            own = self.root / task.id
            own.mkdir(mode=0o700, exist_ok=True)
            for number, (kind, id_, _, file) in enumerate(wanted):
                found = (secrets if kind == "secret" else configs)[id_]
                data = expanded(kind, found, task, place, (secrets, configs))
                path = own / f"{id_}.{number}"  # one secret may be there twice, with different owners
                _write(path, data, file)
                made[_target(kind, file)] = str(path)
        except OSError as why:
            raise FilesRefused(f"cannot write the files of the task: {why}") from why
        return made

    def remove(self, task_id: str) -> None:
        """The task has stopped. Absent already is fine."""
        shutil.rmtree(self.root / task_id, ignore_errors=True)

    def keep(self, task_ids: Collection[str]) -> None:
        """Remove what an earlier life of this daemon left for other tasks than these."""
        if self.root.is_dir():
            for path in self.root.iterdir():
                if path.name not in task_ids:
                    shutil.rmtree(path, ignore_errors=True)


def _wanted(task: Task) -> list[tuple[str, str, str, FileTarget]]:
    """(kind, id, name, target) of each file; configs for the runtime (credential specs) are no files."""
    spec = spec_of(task)
    secrets = [(payload_id(s.secret_id, s.data_version), s.secret_name, s.file) for s in spec.secrets]
    configs = [
        (payload_id(c.config_id, c.data_version), c.config_name, c.file) for c in spec.configs if c.runtime is None
    ]
    return [
        (kind, id_, f"{kind} {name}", file or FileTarget(name=name))
        for kind, used in (("secret", secrets), ("config", configs))
        for id_, name, file in used
    ]


def _target(kind: str, file: FileTarget) -> str:
    return file.name if file.name.startswith("/") else ("/run/secrets/" if kind == "secret" else "/") + file.name


def _write(path: Path, data: bytes, file: FileTarget) -> None:
    """In place: a container that was made before mounts this very inode."""
    owner = [_number(name) for name in (file.uid, file.gid)]
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
    os.chown(path, *owner)
    path.chmod(file.mode & 0o7777)


def _number(owner: str) -> int:
    if owner and not owner.isdecimal():
        raise FilesRefused(f'a file is to belong to "{owner}": only numbers are known outside of the container')
    return int(owner or 0)
