"""This host's WireGuard key: made here, kept here, and only its public half is told to anybody."""

from __future__ import annotations

import logging
from pathlib import Path

from afterswarm.ports import Kernel

log = logging.getLogger(__name__)


class Keys:
    """`public` is "" while this host cannot encrypt, and `why` says why not. `file` is in the daemon's directory."""

    def __init__(self, kernel: Kernel, file: Path) -> None:
        self.public = ""
        self.private = ""
        self.why = "not looked at yet"
        self._kernel = kernel
        self._file = file

    async def look(self) -> bool:
        """Find or make it; whether it is there since now. What this host lacks it may have the next time."""
        if self.public:
            return False
        try:
            kept = self._file.read_text().strip() if self._file.exists() else ""
            self.private, self.public = await self._kernel.key_pair(kept)
            if not kept:
                self._keep()
        except OSError as why:
            self.why = str(why)
        return bool(self.public)

    def forget(self) -> None:
        """This host has left its swarm: in another one it is another."""
        self.private = self.public = ""
        self._file.unlink(missing_ok=True)

    def _keep(self) -> None:
        new = self._file.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(self.private + "\n")
        new.replace(self._file)
