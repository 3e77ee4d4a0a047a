from pathlib import Path

from services.supervisor.process import bound_log, log_tail
from tests.kit.disks import fill, needs_mount, small_disk


def test_a_log_that_grows_is_cut_and_the_end_of_it_kept_once(tmp_path: Path) -> None:
    log = tmp_path / "git.log"
    with log.open("ab") as service:
        for number in range(1, 4):
            service.write(b"%d" % number * 100)
            service.flush()
            bound_log(log, limit_bytes=50)
        service.write(b"end")

    assert log.read_bytes() == b"end"
    assert (tmp_path / "git.log.1").read_bytes() == b"3" * 100


def test_a_small_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "git.log"
    bound_log(log)
    log.write_text("a\n")
    bound_log(log, limit_bytes=50)

    assert (log_tail(log), log_tail(tmp_path / "none")) == ("a", "")


@needs_mount
def test_a_log_that_grows_on_a_full_disk_is_cut_and_its_end_kept(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        log, older = disk / "git.log", disk / "git.log.1"
        older.write_bytes(b"older")
        log.write_bytes(b"x" * 600_000 + b"the end\n")
        ballast = fill(disk)
        bound_log(log, limit_bytes=50)
        assert log_tail(log).endswith("the end")
        assert log.stat().st_size < 10_000
        assert not older.exists()

        ballast.unlink()
        bound_log(log, limit_bytes=50)
        assert (log.read_bytes(), older.read_bytes()[-8:]) == (b"", b"the end\n")
