"""Secrets and configs. A secret's payload is kept sealed: only managers that hold the cluster key can read it."""

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
    sealed: str = ""  # base64 of nonce and AES-256-GCM ciphertext; the id is bound as associated data

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

    @property
    def name(self) -> str:
        return self.spec.name
