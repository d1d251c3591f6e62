"""One floating address on this host, as `floats` keeps it; and the note of those that are here."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from pathlib import Path

from afterswarm.core.floating.holder import Holder
from afterswarm.core.floating.place import Place

ANNOUNCED = (0.0, 0.1, 0.3, 1.0, 3.0)  # seconds after it came, and then every so often:
REMIND = 10.0


class Float:
    """One address here."""

    def __init__(self, where: Place) -> None:
        self.where = where
        self.mind = Holder()
        self.device = ""
        self.why = "starting"  # not willing, "" when it is
        self.present = False  # on the interface
        self.opened = -inf
        self.came = -inf
        self.announced = 0
        self.failed_until = -inf
        self.byes = 0  # still to be said

    @property
    def willing(self) -> bool:
        return not self.why

    def announces(self, now: float) -> bool:
        """Whether to tell the network now that it is here."""
        count = self.announced
        after = ANNOUNCED[count] if count < len(ANNOUNCED) else REMIND * (count - len(ANNOUNCED) + 1)
        return now >= self.came + after


class Note:
    """Which address is on which interface, in a file on a tmpfs: for the daemon's next life."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, there: Iterable[Float]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text("".join(f"{found.where.address} {found.device}\n" for found in there))

    def read(self) -> list[tuple[str, str]]:
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(address, device) for address, _, device in (line.partition(" ") for line in lines)]

    def clear(self) -> None:
        self._file.unlink(missing_ok=True)
