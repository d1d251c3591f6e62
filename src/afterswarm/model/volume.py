"""Where local volumes lie, so that a database is never started on the empty disk of another host; cluster volumes."""

from __future__ import annotations

from afterswarm.model.base import Obj, Part


class Volume(Obj, frozen=True):
    """Volume `name` of slot `slot` of the service named `service` lies on `node_id`.

    id = ids.derive("volume", name, service, slot). Named by service *name*, not id: removing and deploying a stack
    again finds its data. Written by the scheduler with the assignment; goes with the node.
    """

    name: str = ""
    service: str = ""
    slot: int = 0
    node_id: str = ""


# ---- cluster volumes: kept and shown, and used by nothing, since there are no CSI plugins -------------------------


class TypeMount(Part, frozen=True):
    fs_type: str = ""
    mount_flags: list[str] = []


class AccessMode(Part, frozen=True):
    scope: str = "single"  # single, multi
    sharing: str = "none"  # none, readonly, onewriter, all
    mount_volume: TypeMount | None = None
    block_volume: dict[str, object] | None = None


class Topology(Part, frozen=True):
    segments: dict[str, str] = {}


class TopologyRequirement(Part, frozen=True):
    requisite: list[Topology] = []
    preferred: list[Topology] = []


class CapacityRange(Part, frozen=True):
    required_bytes: int = 0
    limit_bytes: int = 0


class VolumeSecret(Part, frozen=True):
    key: str = ""
    secret: str = ""  # its id


class ClusterVolumeSpec(Part, frozen=True):
    group: str = ""
    access_mode: AccessMode | None = None
    accessibility_requirements: TopologyRequirement | None = None
    capacity_range: CapacityRange | None = None
    secrets: list[VolumeSecret] = []
    availability: str = "active"  # active, pause, drain


class ClusterVolume(Obj, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    driver: str = ""
    options: dict[str, str] = {}
    spec: ClusterVolumeSpec = ClusterVolumeSpec()
