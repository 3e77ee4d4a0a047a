"""Small files appear whole or not at all, and what was set aside for one is enough for it on a full disk."""

from pathlib import Path

import pytest

from services.common.files import release, reserve, write_whole
from services.common.room import has_no_room
from tests.kit.disks import fill, needs_mount, small_disk, use_up_inodes


def test_a_file_is_as_long_as_what_was_written_whatever_was_reserved(tmp_path: Path) -> None:
    path = tmp_path / "file"
    reserve(path, 5000)
    for content in (b"short", b"", b"x" * 9000):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@needs_mount
@pytest.mark.parametrize("kind", [fill, use_up_inodes])
def test_what_is_set_aside_is_enough_on_a_full_disk(kind, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", inodes=30) as disk:
        reserved, unused, too_small, other = (disk / name for name in ("reserved", "unused", "too small", "other"))
        for path, size in ((reserved, 5000), (unused, 100), (too_small, 100)):
            reserve(path, size)
        assert not has_no_room(disk)
        kind(disk)
        assert has_no_room(disk)
        write_whole(reserved, b"x" * 5000, durable=True)
        assert reserved.read_bytes() == b"x" * 5000
        with pytest.raises(OSError, match="No space left"):
            write_whole(other, b"y" * 5000)
        if kind is fill:
            with pytest.raises(OSError, match="No space left"):
                write_whole(too_small, b"y" * 50_000)
        write_whole(too_small, b"fits")
        release(unused)
        assert {entry.name for entry in disk.iterdir() if "ballast" not in entry.name} == {"reserved", "too small"}
