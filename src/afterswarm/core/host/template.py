"""The `{{.Node.Hostname}}` of host names, environment and mounts: the fields that Docker documents, not Go's language.

Source: SwarmKit's `template/context.go`. Anything else between braces is refused in words that reach `service ps`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from afterswarm.model.refused import Refused

_ACTION = re.compile(r"{{-?\s*(.*?)\s*-?}}")


def expand(text: str, fields: Mapping[str, str]) -> str:
    """`text` with every `{{.Name}}` replaced by `fields["Name"]`. Raises `Refused` for a name that is not there."""

    def value(action: re.Match[str]) -> str:
        name = action[1].removeprefix(".")
        if not action[1].startswith(".") or name not in fields:
            raise Refused(400, f'template: expansion: "{action[1]}" cannot be evaluated in "{text}"')
        return fields[name]

    return _ACTION.sub(value, text) if "{{" in text else text
