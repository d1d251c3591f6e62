"""What older engines would drop in silence is refused instead, and nothing else is."""

from __future__ import annotations

import pytest

from afterswarm.core.host.needs import lacking

BIND = {"Type": "bind", "Source": "/a", "Target": "/b"}


@pytest.mark.parametrize(
    ("host", "least"),
    [
        ({"Mounts": [{"Type": "volume", "VolumeOptions": {"Subpath": "a"}}]}, (1, 45)),
        ({"Mounts": [{"Type": "tmpfs", "TmpfsOptions": {"Options": [["noexec"]]}}]}, (1, 46)),
        ({"Mounts": [{"Type": "image", "Source": "x"}]}, (1, 48)),
        ({"Mounts": [BIND | {"BindOptions": {"ReadOnlyForceRecursive": True}}]}, (1, 44)),
        ({"Annotations": {"a": "b"}}, (1, 43)),
        ({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}]}, (1, 44)),
    ],
)
def test_an_engine_that_is_too_old_is_named(host, least):
    body = {"Image": "x", "HostConfig": host}
    assert lacking(body, least) == ""
    older = (least[0], least[1] - 1)
    assert lacking(body, older).endswith(f"with API version 1.{least[1]} or later; this host's has 1.{least[1] - 1}")


def test_what_every_engine_knows_is_asked_of_all():
    mounts = [BIND | {"ReadOnly": True}, {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": 1, "Options": []}}]
    assert lacking({"HostConfig": {"Mounts": mounts, "DeviceRequests": [{"Driver": "nvidia"}]}}, (1, 41)) == ""
    assert lacking({}, (1, 41)) == ""
