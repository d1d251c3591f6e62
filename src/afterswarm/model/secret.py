"""Secrets and configs. A secret's data is kept sealed: only managers that hold the cluster key can read it.

Their data may be replaced. The newest is in the object; what something still uses of the older ones is in `Payload`s.
Versions count from 0, and whoever uses a secret or config says which version (`model.service.SecretReference`).
"""

from __future__ import annotations

from afterswarm.model.base import Obj, Part
from afterswarm.model.service import Driver


class SecretSpec(Part, frozen=True):
    """Body of `POST /secrets/create`. `data` is base64."""

    name: str = ""
    labels: dict[str, str] = {}
    data: str = ""
    driver: Driver | None = None
    templating: Driver | None = None


class Secret(Obj, frozen=True):
    spec: SecretSpec = SecretSpec()  # `data` is always empty here
    sealed: str = ""  # base64 of nonce and AES-256-GCM ciphertext; `payload_id` is bound as associated data
    data_version: int = 0

    @property
    def name(self) -> str:
        return self.spec.name


class ConfigSpec(Part, frozen=True):
    """Body of `POST /configs/create`. `data` is base64."""

    name: str = ""
    labels: dict[str, str] = {}
    data: str = ""
    templating: Driver | None = None


class Config(Obj, frozen=True):
    spec: ConfigSpec = ConfigSpec()
    data_version: int = 0

    @property
    def name(self) -> str:
        return self.spec.name


class Payload(Obj, frozen=True):
    """What a secret or a config was before, as it was kept there. Never changed; its id is its `payload_id`."""

    owner: str = ""  # id of the secret or config
    data_version: int = 0
    sealed: str = ""  # of a secret
    data: str = ""  # of a config
    templating: Driver | None = None


def payload_id(owner: str, version: int) -> str:
    """The name of one version of the data of a secret or config: what it is sealed for and sent as."""
    return f"{owner}.{version}" if version else owner
