"""The spool as bytes: what is appended is there, what was promised room gets it, whatever the disk says."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Generator
from pathlib import Path

import pytest

from indigo.backends.queue.segment import START, Segment, framed
from indigo.backends.queue.spool import LARGEST, Spool
from indigo.kernel.errors import Unavailable

SEGMENT = 4 * LARGEST


def open_spool(root: Path, segments: int = 8) -> Spool:
    return Spool(root, max_bytes=segments * SEGMENT, segment_bytes=SEGMENT)


def contents(root: Path) -> list[bytes]:
    """Everything in the folders of the dead, which are let go again."""
    reader = open_spool(root)
    found: list[bytes] = []
    for orphan in reader.orphans():
        found.extend(payload for payload, intact, _ in orphan.records() if intact)
        orphan.close(delete=False)
    reader.close(delete=True)
    return found


def open_until_refused(spool: Spool, payload: bytes, reserve: int) -> int:
    """How many records were taken until there was no room."""
    for number in range(1_000_000):
        try:
            spool.append(payload, reserve=reserve)
        except Unavailable:
            return number
    raise AssertionError("it was never refused")


def test_what_was_appended_is_found_by_another_process_in_order(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    written = [bytes([number % 251]) * (number * 7 % 5000 + 1) for number in range(300)]
    for payload in written:
        spool.append(payload)
    assert len(spool.segments) >= 2
    spool.close(delete=False)
    assert contents(tmp_path) == written


def test_a_folder_in_use_is_no_orphan(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    other = open_spool(tmp_path)
    assert list(other.orphans()) == []
    spool.close(delete=False)
    (orphan,) = other.orphans()
    third = open_spool(tmp_path)
    assert list(third.orphans()) == []
    orphan.close(delete=True)
    assert list(third.orphans()) == []


def test_the_spool_has_a_limit_and_room_set_aside_is_kept_within_it(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segments=3)
    payload, end = b"o" * 300, b"c" * 1000
    opened = open_until_refused(spool, payload, 1000)
    assert opened > 100
    assert spool.bytes_used == 3 * SEGMENT
    while spool.append_spare(b"p" * 50):
        pass
    for _ in range(opened):
        spool.append_reserved(end, 1000)
    spool.close(delete=False)
    assert contents(tmp_path).count(end) == opened


def test_an_end_larger_than_the_room_set_aside_waits_in_memory_for_some(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segments=2)
    spool.append(b"a", reserve=100)
    while spool.append_spare(b"p" * 4000):
        pass
    with contextlib.suppress(Unavailable):
        while True:
            spool.append(b"p" * 4000)
    spool.append_reserved(b"late" * 3000, 100)
    assert not spool.drained
    for segment in spool.segments:
        segment.finish(segment.end)
    spool.release(spool.current.number)
    spool.write_late()
    assert not spool.drained
    spool.current.finish(spool.current.end)
    assert spool.drained
    spool.close(delete=False)
    assert contents(tmp_path).count(b"late" * 3000) == 1


@pytest.mark.threat("F8")
def test_a_full_disk_refuses_new_requests_and_never_the_end_of_one(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with file_size_limit(SEGMENT // 2):
        opened = open_until_refused(spool, b"o" * 300, 500)
        for _ in range(opened):
            spool.append_reserved(b"c" * 500, 500)
        with pytest.raises(Unavailable, match="disk"):
            open_spool(tmp_path)
    spool.append(b"space is back" * 100)
    assert len(list(spool.folder.glob("*.seg"))) * SEGMENT == spool.bytes_used
    spool.close(delete=False)
    found = contents(tmp_path)
    assert (found.count(b"o" * 300), found.count(b"c" * 500)) == (opened, opened)


def test_disk_space_is_taken_when_the_segment_is_made(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "1.seg", SEGMENT)
    assert segment.path.stat().st_blocks * 512 >= SEGMENT
    segment.delete()
    assert list(tmp_path.iterdir()) == []


def test_a_record_whose_length_was_not_written_is_not_there(tmp_path: Path) -> None:
    """Killed between payload and length."""
    segment = Segment.create(tmp_path / "1.seg", SEGMENT)
    segment.append(b"first")
    at = segment.end
    segment.append(b"second")
    segment.close()
    with open(tmp_path / "1.seg", "r+b") as file:
        file.seek(at)
        file.write(bytes(4))
    found = Segment.open(tmp_path / "1.seg")
    assert found is not None
    assert [payload for _, payload, _ in found.records(START)] == [b"first"]
    found.close()


def test_a_length_that_leads_out_of_the_file_ends_the_walk_with_what_is_left(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "1.seg", SEGMENT)
    segment.append(b"first")
    at = segment.end
    segment.append(b"second")
    segment.close()
    with open(tmp_path / "1.seg", "r+b") as file:
        file.seek(at)
        file.write(b"\xff\xff\xff\xff")
    found = Segment.open(tmp_path / "1.seg")
    assert found is not None
    walked = list(found.records(START))
    assert [intact for _, _, intact in walked] == [True, False]
    assert b"second" in walked[1][1]
    found.close()


def test_files_that_are_no_segments_are_passed_over(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(b"good")
    (spool.folder / "000000000009.seg").write_bytes(b"")
    (spool.folder / "000000000010.seg").write_bytes(bytes(100))
    spool.close(delete=False)
    assert contents(tmp_path) == [b"good"]


def test_a_record_too_large_for_the_journal_is_refused(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(Unavailable, match="too large"):
        spool.append(b"x" * LARGEST)
    assert framed(1) == 12
    spool.close(delete=True)
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def file_size_limit(size: int) -> Generator[None]:
    """No file can grow over `size` meanwhile: what a full disk is to an allocation."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
