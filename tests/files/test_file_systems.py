"""The file system of a folder, from texts of /proc/self/mountinfo."""

from pathlib import Path

import pytest

from hilo_nas.files.file_systems import find_file_system, is_network_file_system, read_mounts

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /home rw shared:5 master:2 - nfs4 server:/export rw,vers=4.2
31 30 0:41 / /home/me/local rw - xfs /dev/sdb rw
32 22 0:42 / /mnt/my\040disk rw - cifs //server/x rw
33 22 0:43 / /mnt/gro\303\237 rw - fuse.sshfs me@host: rw
34 22 0:44 / /twice rw - nfs server:/a rw
35 34 0:45 / /twice rw - tmpfs tmpfs rw
a line that is none
36 22 0:46 / /host rw - 9p share rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/homes/me", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/studies/demo", "nfs4"),
        ("/home/me/local/studies", "xfs"),
        ("/mnt/my disk/studies", "cifs"),
        ("/mnt/groß", "fuse.sshfs"),
        ("/twice/x", "tmpfs"),
        ("/host/x", "9p"),
    ],
)
def test_the_innermost_mount_counts_and_the_last_of_two(folder, kind):
    assert find_file_system(Path(folder), MOUNTS) == kind


def test_links_are_resolved(tmp_path):
    (tmp_path / "link").symlink_to("/home/me")
    assert find_file_system(tmp_path / "link" / "demo", MOUNTS) == "nfs4"


def test_without_a_list_the_file_system_is_unknown(tmp_path):
    assert read_mounts(tmp_path) == ""
    assert find_file_system(tmp_path, "") is None
    assert not is_network_file_system(None)


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "9p", "ceph", "beegfs"])
def test_network_file_systems_are_known(kind):
    assert is_network_file_system(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "overlay", "fuse.mergerfs", "btrfs", "zfs"])
def test_local_ones_are_none(kind):
    assert not is_network_file_system(kind)
