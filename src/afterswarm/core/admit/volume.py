"""Cluster volumes (CSI): what of them may be asked, in SwarmKit's words. They are kept, and no plugin makes them."""

from __future__ import annotations

from msgspec.structs import replace

from afterswarm import ids
from afterswarm.core.admit.words import invalid
from afterswarm.model.refused import Refused
from afterswarm.model.snapshot import Snapshot
from afterswarm.model.volume import AccessMode, ClusterVolume, ClusterVolumeSpec

_SCOPES = ("single", "multi")
_SHARINGS = ("none", "readonly", "onewriter", "all")
_AVAILABILITIES = ("active", "pause", "drain")


def create(snap: Snapshot, asked: ClusterVolume) -> ClusterVolume:
    """`asked` has no id yet. Raises `Refused`."""
    mode = asked.spec.access_mode
    if not asked.name:
        raise invalid("meta: name must be provided")
    if mode is None:
        raise invalid("AccessMode must not be nil")
    if mode.mount_volume is None and mode.block_volume is None:
        raise invalid("Volume AccessMode must specify either Mount or Block access type")
    missing = [s.secret for s in asked.spec.secrets if s.secret not in snap.secrets]
    if missing:
        raise invalid(f"secret{'s' if len(missing) > 1 else ''} not found: {', '.join(missing)}")
    if any(v.name == asked.name for v in snap.cluster_volumes.values()):
        why = f"name conflicts with an existing object: volume {asked.name} already exists"
        raise Refused(409, f"rpc error: code = AlreadyExists desc = {why}")
    spec = replace(asked.spec, access_mode=_usual(mode), availability=_one(asked.spec.availability, _AVAILABILITIES))
    return replace(asked, id=ids.derive("cluster-volume", asked.name, snap.rev), spec=spec)


def update(volume: ClusterVolume, spec: ClusterVolumeSpec) -> ClusterVolume:
    """Docker takes the availability from it and nothing else."""
    if spec.availability not in _AVAILABILITIES:
        return volume
    return replace(volume, spec=replace(volume.spec, availability=spec.availability))


def _usual(mode: AccessMode) -> AccessMode:
    return replace(mode, scope=_one(mode.scope, _SCOPES), sharing=_one(mode.sharing, _SHARINGS))


def _one(word: str, words: tuple[str, ...]) -> str:
    """Docker takes what it does not know for the first."""
    return word if word in words else words[0]
