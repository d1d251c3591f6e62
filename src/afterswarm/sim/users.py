"""People who use a simulated swarm, by chance: they deploy, scale, update, roll back, remove, drain, and label."""

from __future__ import annotations

from base64 import b64encode
from random import Random

from msgspec.structs import replace

from afterswarm.core.admit import network as admit_network
from afterswarm.core.admit import secret as admit_secret
from afterswarm.core.admit import service as admit
from afterswarm.model.base import Change
from afterswarm.model.network import Network, NetworkSpec
from afterswarm.model.node import Availability
from afterswarm.model.refused import Refused
from afterswarm.model.secret import Config, ConfigSpec
from afterswarm.model.service import (
    SECOND,
    ConfigReference,
    ContainerSpec,
    FileTarget,
    Mount,
    NetworkAttachmentConfig,
    Placement,
    ReplicatedJob,
    ReplicatedService,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from afterswarm.model.snapshot import Snapshot
from afterswarm.ports import Conflict, Replica, Unavailable

NAMES = ("web", "db", "job")
GLOBAL = "agent"
JOB, GLOBAL_JOB = "batch", "sweep"
IMAGES = ("app:1", "app:2", "app:3", "bad:1", "crashing:1", "ends:1")
NETWORK = "n1"
CONFIG = "c1"


class User:
    """`act` does one thing through a manager; refusals, conflicts and outages are its bad luck."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.done: list[str] = []

    async def act(self, replica: Replica) -> None:
        snap = replica.snapshot()
        choices = (
            (self._deploy, 4),
            (self._scale, 4),
            (self._update, 4),
            (self._roll_back, 1),
            (self._remove, 1),
            (self._availability, 2),
            (self._label, 1),
            (self._network, 1),
            (self._config, 2),
        )
        [deed] = self.rng.choices([c for c, _ in choices], [w for _, w in choices])
        try:
            done = deed(snap)
            changes = done if isinstance(done, list) else [done] if done else []
            if changes:
                await replica.commit(changes)
                self.done.append(f"{snap.now:.2f} {deed.__name__.strip('_')} {changes[0].obj.id}")
        except (Refused, Conflict, Unavailable):
            pass

    def _service(self, snap: Snapshot) -> Service | None:
        there = [s for _, s in sorted(snap.services.items()) if not s.pending_delete]
        return self.rng.choice(there) if there else None

    def _deploy(self, snap: Snapshot) -> Change:
        name = self.rng.choice((*NAMES, GLOBAL, JOB, GLOBAL_JOB))
        modes = {
            GLOBAL: ServiceMode(global_={}),
            JOB: ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2, total_completions=4)),
            GLOBAL_JOB: ServiceMode(global_job={}),
        }
        mode = modes.get(name, ServiceMode(replicated=ReplicatedService(replicas=2)))
        return Change(None, admit.create(snap, self._spec(ServiceSpec(name=name, mode=mode), snap)))

    def _scale(self, snap: Snapshot) -> Change | None:
        service = self._service(snap)
        if service is None or service.spec.mode.per_node:
            return None
        count = self.rng.randrange(5)
        mode = ServiceMode(replicated=ReplicatedService(replicas=count))
        if job := service.spec.mode.replicated_job:
            mode = ServiceMode(replicated_job=replace(job, total_completions=count))
        return Change(service, admit.update(snap, service, replace(service.spec, mode=mode)))

    def _update(self, snap: Snapshot) -> Change | None:
        service = self._service(snap)
        return Change(service, admit.update(snap, service, self._spec(service.spec, snap))) if service else None

    def _roll_back(self, snap: Snapshot) -> Change | None:
        service = self._service(snap)
        return Change(service, admit.update(snap, service, service.spec, rollback=True)) if service else None

    def _remove(self, snap: Snapshot) -> Change | None:
        service = self._service(snap)
        return Change(service, admit.remove(snap, service)) if service else None

    def _availability(self, snap: Snapshot) -> Change:
        node = snap.nodes[self.rng.choice(sorted(snap.nodes))]
        return Change(node, replace(node, spec=replace(node.spec, availability=self.rng.choice(list(Availability)))))

    def _label(self, snap: Snapshot) -> Change:
        node = snap.nodes[self.rng.choice(sorted(snap.nodes))]
        return Change(node, replace(node, spec=replace(node.spec, labels={"zone": self.rng.choice("ab")})))

    def _network(self, snap: Snapshot) -> Change | None:
        network = snap.networks.get(NETWORK)
        if network is None:
            return Change(None, Network(id=NETWORK, spec=NetworkSpec(name="backend")))
        return admit_network.remove(snap, network)

    def _config(self, snap: Snapshot) -> list[Change]:
        """New data, or some of before, for the one config that services use."""
        data = b64encode(self.rng.choice((b"a", b"b", b"c"))).decode()
        old = snap.configs.get(CONFIG)
        if old is None:
            return [Change(None, Config(id=CONFIG, spec=ConfigSpec(name=CONFIG, data=data)))]
        made = admit_secret.update_config(snap, old, ConfigSpec(name=CONFIG, data=data))
        new = made.obj if made.data is None else replace(made.obj, spec=replace(made.obj.spec, data=data))
        return [Change(old, new), *made.changes]

    def _spec(self, spec: ServiceSpec, snap: Snapshot) -> ServiceSpec:
        """This specification with some of its parts changed."""
        rng = self.rng
        [image] = rng.choices(IMAGES, (1, 1, 1, 1, 1, 12) if spec.mode.is_job else (6, 6, 6, 1, 1, 1))
        networks = [NetworkAttachmentConfig(target=NETWORK)] if NETWORK in snap.networks else []
        zone = rng.choice(("", "", "", "a", "b"))
        mounts = [Mount(source="data", target="/data")] if spec.name == "db" else []
        used = CONFIG in snap.configs and rng.random() < 0.7
        reference = ConfigReference(config_id=CONFIG, config_name=CONFIG, file=FileTarget(name="/c"))
        template = TaskSpec(
            container_spec=ContainerSpec(
                image=image, mounts=mounts, stop_grace_period=5 * SECOND, configs=[reference] if used else []
            ),
            networks=networks if rng.random() < 0.7 else [],
            placement=Placement(constraints=[f"node.labels.zone == {zone}"]) if zone else None,
            restart_policy=RestartPolicy(
                condition=rng.choice(("any", "any", "on-failure", "none")),
                delay=rng.choice((None, 0, SECOND)),
                max_attempts=rng.choice((None, 0, 2)),
                window=rng.choice((None, 10 * SECOND)),
            ),
            force_update=rng.randrange(2),
        )
        return replace(
            spec,
            task_template=template,
            update_config=None if spec.mode.is_job else self._update_config(),
            rollback_config=self._update_config(),
        )

    def _update_config(self) -> UpdateConfig | None:
        rng = self.rng
        if rng.random() < 0.3:
            return None
        return UpdateConfig(
            parallelism=rng.choice((0, 1, 2)),
            delay=rng.choice((0, SECOND)),
            failure_action=rng.choice(("pause", "continue", "rollback")),
            monitor=rng.choice((None, 2 * SECOND)),
            max_failure_ratio=rng.choice((0.0, 0.5)),
            order=rng.choice(("stop-first", "start-first")),
        )
