"""Names of devices and of targets, which are one device or several equal ones."""

import pytest

from hilo_nas.errors import UsageError
from hilo_nas.measurement import devices_of, kind_of_device, kind_of_target


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        ("cuda:1", "cuda"),
        ("mps", "mps"),
        ("cuda:0,cuda:1", "cuda"),
        ("cuda:3, cuda:1", "cuda"),
        ("cuda:all", "cuda"),
    ],
)
def test_a_target_has_the_kind_of_its_devices(target, kind):
    assert kind_of_target(target) == kind


def test_spaces_around_the_names_of_devices_do_not_count():
    assert devices_of("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert devices_of("cpu") == ("cpu",)


@pytest.mark.parametrize(
    "target", ["", "gpu", "cuda:x", "cuda:0,cuda:0", "cpu,cpu", "mps,cuda:0", "cuda,cuda:1", "cuda:"]
)
def test_other_targets_are_refused(target):
    with pytest.raises(UsageError):
        kind_of_target(target)


@pytest.mark.parametrize("name", ["cuda:0,cuda:1", "cuda:all"])
def test_several_devices_are_no_device(name):
    with pytest.raises(UsageError, match="device must be cpu, cuda, cuda:N or mps"):
        kind_of_device(name)
