"""A container's privileges: only the credential specification, which is for Windows, can be given wrongly."""

from __future__ import annotations

from afterswarm.core.admit.words import invalid
from afterswarm.model.refused import Refused
from afterswarm.model.service import ContainerSpec


def check_privileges(container: ContainerSpec) -> None:
    """Raises `Refused`."""
    spec = container.privileges.credential_spec if container.privileges else None
    if spec is None:
        return
    given = [f'"{kind}"' for kind in ("config", "file", "registry") if getattr(spec, kind)]
    if not given:
        why = 'must either provide "file", "registry", or "config" for credential spec'
        raise Refused(400, f"invalid CredentialSpec: {why}")
    if len(given) > 1:
        both = f"{given[0]} and {given[1]}" if len(given) == 2 else f"{', '.join(given[:-1])}, and {given[-1]}"
        raise Refused(400, f"invalid CredentialSpec: cannot specify both {both} credential specs")
    if spec.config and not any(c.config_id == spec.config and c.runtime is not None for c in container.configs):
        raise invalid(
            f"CredentialSpec references config '{spec.config}', "
            "but that config isn't in config references with RuntimeTarget"
        )
