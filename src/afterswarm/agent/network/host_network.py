"""What containers need of their host's network: the seam between the worker (containers) and `agent.network`."""

from __future__ import annotations

from typing import Protocol

from afterswarm.model.task import Task
from afterswarm.ports import Json


class HostNetwork(Protocol):
    """Order for one task: `prepare`, create the container, start it, `started`, …, `drain`, `stopped`.

    A container that is found running (the daemon restarted) gets `started` alone.
    """

    async def prepare(self, task: Task) -> list[tuple[str, Json]]:
        """Make what the task's attachments need on this host.

        One (engine network name, EndpointSettings) per attachment, in the task's order, without names: service names
        are the resolver's business, and the engine would answer them with the one container it knows. Empty when the
        task has no attachment. Raises `EngineError` with the reason, `EngineGone`.
        """

    def dns(self, task: Task) -> list[str]:
        """`HostConfig.Dns`; empty when the task is in no network of ours (leave the engine's default then).

        A task's own nameservers (`ContainerSpec.dns_config`) are asked by our resolver for names that it does not
        know, so they do not belong into `HostConfig.Dns` when this is not empty.
        """

    async def started(self, task: Task, pid: int) -> None:
        """Put the virtual addresses into the namespace of process `pid` (the engine's `State.Pid`).

        Called after each start and before RUNNING is reported. A process that has gone already is not an error.
        """

    async def drain(self, task: Task) -> None:
        """Return when no host sends new connections to the task, and those that it has got their time.

        To be awaited before a container that works is told to end; the manager has told everybody already.
        """

    async def stopped(self, task_id: str) -> None:
        """The container has ended; its rules went with its namespace."""
