"""Files that another program writes: a frame counts once it is whole, and never changes after."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tables
import tifffile

from cluster.dataserver.growing import GrowingReaders, Look
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.ndtiff import INDEX
from cluster.dataserver.readers.registry import open_written
from cluster.dataserver.store import SeriesStore
from cluster.errors import Conflict, Invalid, NotFound, Unavailable
from cluster.fingerprint import GROWS

Array = np.ndarray[Any, Any]
Opener = Callable[[Path], SeriesReader]
FRAMES = 6
STACK = np.random.default_rng(5).integers(90, 4000, (FRAMES, 6, 9), dtype=np.uint16)


class Desk:
    """A store of growing series with a clock of its own."""

    def __init__(self, opener: Opener = open_written) -> None:
        self.now = 100.0
        self.readers = GrowingReaders(opener, now=lambda: self.now)

    def look(self, path: Path) -> Look:
        """Look anew, whenever the last look was."""
        self.now += 60.0
        return self.readers.look(path)

    def counted(self, path: Path, written: Array = STACK) -> int:
        """Return how many frames count, having compared every one of them; 0 for a file of which there is nothing yet."""
        try:
            look = self.look(path)
        except Unavailable:
            return 0
        whole = look.progress.whole
        frames, missing, _ = self.readers.frames(path, 0, whole, look.fingerprint)
        np.testing.assert_array_equal(frames, written[:whole])
        assert missing == ()
        return whole

    def ends(self, path: Path) -> bool:
        """Return whether the series is complete when nothing has come for a while."""
        self.look(path)
        return self.look(path).complete


@pytest.fixture(scope="module")
def parsers() -> Iterator[Parsers]:
    parsers = Parsers()
    yield parsers
    parsers.close()


@pytest.fixture(params=["parsed here", "parsed apart"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    apart = request.param == "parsed apart"
    desk = Desk(request.getfixturevalue("parsers").open_written if apart else open_written)
    yield desk
    desk.readers.close()


def pages(path: Path, stack: Array = STACK, **options: Any) -> bytes:
    with tifffile.TiffWriter(path, **options) as writer:
        for frame in stack:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    return path.read_bytes()


def ends_of_pages(path: Path) -> list[int]:
    with tifffile.TiffFile(path) as tif:
        return [page.dataoffsets[-1] + page.databytecounts[-1] for page in tif.pages]


@pytest.mark.parametrize("options", [{}, {"bigtiff": True, "byteorder": ">"}], ids=["tiff", "bigtiff"])
@pytest.mark.parametrize("laid_out", [False, True], ids=["appended", "laid out at full size"])
def test_a_tiff_torn_at_any_byte_of_a_page_gives_the_pages_that_have_a_successor(
    tmp_path: Path, options: Any, laid_out: bool
) -> None:
    whole = pages(tmp_path / "whole.tif", **options)
    ends = ends_of_pages(tmp_path / "whole.tif")
    path, known = tmp_path / "growing.tif", Desk()
    counts = []
    for cut in range(ends[2] - 20, ends[4] + 1):
        rest = bytes(len(whole) - cut) if laid_out else b""
        path.write_bytes(whole[:cut] + rest)
        counts.append(known.counted(path))
        if cut % 16 == 0:  # one that did not see it grow says the same
            fresh = Desk()
            assert fresh.counted(path) == counts[-1], cut
            fresh.readers.close()
        held = sum(end <= cut for end in ends)
        assert counts[-1] <= held, cut
    known.readers.close()

    there = [count for count in counts if count]  # half a description may make no sense: that is for later
    assert there == sorted(there)
    assert there[0] >= 2
    assert there[-1] >= 4
    assert len(there) > (len(counts) // 2 if laid_out else len(counts) - 1)


def test_the_last_page_of_a_tiff_counts_only_with_its_successor_but_is_served_after_the_end(
    tmp_path: Path, desk: Desk
) -> None:
    path = tmp_path / "series.tif"
    pages(path)

    look = desk.look(path)
    frames, missing, shape = desk.readers.frames(path, 0, FRAMES, look.fingerprint)

    assert (look.shape.frames, look.shape.complete, shape.frames) == (FRAMES - 1, False, FRAMES)
    assert not look.progress.marked
    np.testing.assert_array_equal(frames, STACK)
    assert missing == ()


@pytest.mark.parametrize("linked", [False, True])
def test_a_tiff_that_ends_in_the_middle_of_a_page_is_torn_whether_the_page_is_linked_or_not(
    tmp_path: Path, desk: Desk, linked: bool
) -> None:
    path = tmp_path / "series.tif"
    stack = np.random.default_rng(2).integers(90, 4000, (4, 64, 64), dtype=np.uint16)
    whole = pages(path, stack)
    assert not desk.look(path).progress.torn
    with tifffile.TiffFile(path) as tif:
        link = tif.pages[2].offset + 2 + 12 * len(tif.pages[2].tags)
    data = bytearray(whole[:-1000])
    if not linked:
        data[link : link + 4] = bytes(4)
    path.write_bytes(data)

    progress = desk.look(path).progress

    assert (progress.whole, progress.torn, progress.marked, progress.ended) == (3, True, False, False)


def test_its_fingerprint_stays_while_it_grows_and_when_its_header_is_rewritten(
    tmp_path: Path, desk: Desk
) -> None:
    path = tmp_path / "series.tif"
    pages(path, STACK[:3])
    before = desk.look(path).fingerprint
    pages(path)
    grown = desk.look(path).fingerprint
    tifffile.imwrite(path, STACK, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    rewritten = desk.look(path)

    assert before == grown == rewritten.fingerprint
    assert before.startswith(GROWS)
    assert rewritten.progress.promised == FRAMES
    assert desk.ends(path)


def test_one_that_did_not_see_it_grow_knows_it_by_the_same_fingerprint(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.tif"
    pages(path, STACK[:3])
    before = desk.look(path).fingerprint
    pages(path)
    other = Desk()

    assert other.look(path).fingerprint == before
    other.readers.close()


@pytest.mark.parametrize("keeps", [0, 1], ids=["another series", "another series that begins alike"])
def test_a_file_that_was_replaced_is_another_series_and_stays_one(
    tmp_path: Path, desk: Desk, keeps: int
) -> None:
    path = tmp_path / "series.tif"
    pages(path, STACK[:4])
    before = desk.look(path).fingerprint
    replaced = STACK.copy()
    replaced[keeps:] += 1
    pages(path, replaced)

    first, second = desk.look(path).fingerprint, desk.look(path).fingerprint

    assert first != before
    assert first == second
    with pytest.raises(Conflict, match="the file changed"):
        desk.readers.frames(path, 0, 2, before)


def test_frames_of_a_file_replaced_since_the_last_look_are_not_given_out(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.tif"
    pages(path)
    before = desk.look(path).fingerprint
    pages(path, STACK + 1)

    with pytest.raises(Conflict, match="the file changed"):
        desk.readers.frames(path, 0, 2, before)


def test_frames_that_cannot_be_read_while_it_is_written_are_for_later_and_missing_when_it_rests(
    tmp_path: Path, desk: Desk
) -> None:
    path = tmp_path / "series.tif"
    whole = pages(path)
    look = desk.look(path)
    path.write_bytes(whole[: ends_of_pages(path)[2]])

    with pytest.raises(Unavailable, match=r"frame 4 of series\.tif, which was there, cannot be read now"):
        desk.readers.frames(path, 0, 5, look.fingerprint)
    desk.now += 60.0
    _, missing, _ = desk.readers.frames(path, 0, 5, look.fingerprint)

    assert missing == (3, 4)


def test_frames_that_one_reader_cannot_read_any_more_are_read_from_the_file_as_it_is_now(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "series.tif"
    path.write_bytes(pages(path))
    look = desk.readers.look(path)
    read = look.reader.read

    def as_if_its_index_had_moved(start: int, stop: int) -> tuple[Array, tuple[int, ...]]:
        frames, missing = read(start, stop)
        return frames, (3,) if start <= 3 < stop else missing

    monkeypatch.setattr(look.reader, "read", as_if_its_index_had_moved)

    frames, missing, _ = desk.readers.frames(path, 0, 5, look.fingerprint)

    np.testing.assert_array_equal(frames, STACK[:5])
    assert missing == ()


def test_a_file_without_a_whole_frame_is_for_later(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.tif"
    path.write_bytes(b"II*\0")

    with pytest.raises(Unavailable, match=r"series\.tif .* it will be looked at again"):
        desk.look(path)


def test_a_promised_number_says_the_end(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.tif"
    tifffile.imwrite(path, STACK, imagej=True, metadata={"axes": "TYX"})
    whole, frame_bytes = path.read_bytes(), STACK[0].nbytes
    with tifffile.TiffFile(path) as tif:
        start = tif.pages.first.dataoffsets[0]
    counts = []
    for cut in range(start + frame_bytes, start + 3 * frame_bytes + 1):
        path.write_bytes(whole[:cut])
        counts.append(desk.counted(path))
        assert counts[-1] == (cut - start) // frame_bytes
    progress = desk.look(path).progress

    assert (progress.promised, progress.marked, progress.ended) == (FRAMES, True, False)
    path.write_bytes(whole)
    assert desk.ends(path)


def micromanager_stack(path: Path, stack: Array = STACK, *, finished: bool) -> None:
    """Pages with room in the header for the summary, and for where the index is, which is written last."""
    pages(path, stack, byteorder="<", ome=False)
    data = bytearray(path.read_bytes())
    shift = 40 - 8
    data[8:8] = bytes(shift)
    for at in _links(bytes(data), shift):
        (offset,) = struct.unpack_from("<I", data, at)
        if offset:
            struct.pack_into("<I", data, at, offset + shift)
    struct.pack_into("<II", data, 32, 2355492, 0)
    if finished:
        struct.pack_into("<II", data, 8, 54773648, len(data))
    path.write_bytes(data + (b"" if finished else bytes(5000)))


def _links(data: bytes, shift: int) -> Iterator[int]:
    """Where the offsets of pages, and those in pages, lie."""
    yield 4
    (ifd,) = struct.unpack_from("<I", data, 4)
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}
    while ifd:
        (count,) = struct.unpack_from("<H", data, ifd + shift)
        for entry in range(count):
            at = ifd + shift + 2 + 12 * entry
            tag, kind, number = struct.unpack_from("<HHI", data, at)
            if tag == 273 or sizes[kind] * number > 4:
                yield at + 8
        following = ifd + shift + 2 + 12 * count
        (ifd,) = struct.unpack_from("<I", data, following)
        yield following


def test_a_micromanager_stack_goes_on_in_other_files_and_ends_with_the_index_of_the_last(
    tmp_path: Path, desk: Desk
) -> None:
    path, other = tmp_path / "a_MMStack_Pos0.ome.tif", tmp_path / "a_MMStack_Pos0_1.ome.tif"
    both = np.concatenate([STACK, STACK + 7])
    micromanager_stack(path, finished=False)
    assert desk.counted(path) == FRAMES - 1
    assert desk.look(path).progress.marked
    assert not desk.ends(path)

    micromanager_stack(path, finished=True)
    other.write_bytes(bytes(5000))  # laid out, and nothing in it yet
    assert desk.counted(path) == FRAMES - 1
    assert not desk.ends(path)
    micromanager_stack(other, STACK + 7, finished=False)
    assert desk.counted(path, both) == 2 * FRAMES - 1
    assert not desk.ends(path)
    micromanager_stack(other, STACK + 7, finished=True)

    assert desk.ends(path)
    assert desk.counted(path, both) == 2 * FRAMES


def test_a_folder_of_files_counts_those_that_have_a_successor_and_are_whole(
    tmp_path: Path, desk: Desk
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()

    def write(number: int, *, torn: bool = False) -> None:
        file = folder / f"img_{number:04d}.tif"
        tifffile.imwrite(file, STACK[number], photometric="minisblack")
        if torn:
            file.write_bytes(file.read_bytes()[:-10])

    for number in range(3):
        write(number)
    assert desk.counted(folder) == 2
    write(4)
    assert desk.counted(folder) == 3  # 3 is not there yet
    write(3, torn=True)
    assert desk.counted(folder) == 3
    write(3)
    write(5)
    assert desk.counted(folder) == 5
    assert not desk.ends(folder)

    summary = {"Summary": {"Frames": FRAMES, "Slices": 1}}
    (folder / "metadata.txt").write_text(json.dumps(summary), encoding="utf-8")
    assert desk.ends(folder)


def test_an_ndtiff_counts_what_has_a_successor_in_the_index(tmp_path: Path, desk: Desk) -> None:
    folder, name = tmp_path / "series", b"series_NDTiffStack.tif"
    folder.mkdir()
    entries, pixels = [], b"II*\0" + bytes(12)
    for number, frame in enumerate(STACK):
        axes = json.dumps({"time": number}).encode()
        place = struct.pack("<8I", len(pixels), frame.shape[1], frame.shape[0], 1, 0, 0, 0, 0)
        entries.append(struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name + place)
        pixels += frame.tobytes()
    (folder / name.decode()).write_bytes(pixels + bytes(4000))  # laid out beforehand
    index = b"".join(entries)

    counts = []
    for cut in range(len(entries[0]), len(index) + 1, 3):
        (folder / INDEX).write_bytes(index[:cut] + bytes(200))
        counts.append(desk.counted(folder))

    there = [count for count in counts if count]  # half an entry makes no sense: that is for later
    assert there == sorted(there)
    assert set(there) == set(range(1, FRAMES))


@pytest.mark.parametrize("depth", [1, 4])
def test_a_pyme_file_that_pytables_writes_counts_what_was_flushed(
    tmp_path: Path, desk: Desk, depth: int
) -> None:
    path = tmp_path / "series.h5"
    stack = np.random.default_rng(1).integers(90, 4000, (40, 16, 12), dtype=np.uint16)
    written = stack.transpose(0, 2, 1)
    counts = []
    with tables.open_file(path, "w", filters=tables.Filters(complevel=6, shuffle=True)) as file:
        metadata = file.create_group(file.root, "MetaData")
        images = file.create_earray(
            file.root, "ImageData", tables.UInt16Atom(), (0, 16, 12), chunkshape=(depth, 16, 12)
        )
        for number, frame in enumerate(stack):
            images.append(frame[None])
            if number % 3 == 0:
                file.flush()
            counts.append(desk.counted(path, written))
        assert not desk.ends(path)
        metadata._v_attrs.EndTime = 1.0

    assert counts == sorted(counts)
    assert counts[-1] >= 40 - 3 - depth
    assert desk.ends(path)
    assert desk.counted(path, written) == 40


def test_one_that_is_open_elsewhere_too_is_still_read_as_it_is_now(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.h5"
    written = STACK.transpose(0, 2, 1)
    with tables.open_file(path, "w") as file:
        images = file.create_earray(
            file.root, "ImageData", tables.UInt16Atom(), (0, 6, 9), chunkshape=(1, 6, 9)
        )
        images.append(STACK[:3])
        file.flush()
        with h5py.File(path, "r", locking=False) as other:
            assert other["ImageData"].shape[0] == 3
            images.append(STACK[3:])
            file.flush()

            assert desk.counted(path, written) == FRAMES - 1


def test_hdf5_that_is_marked_as_open_for_writing_is_read_all_the_same(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("ImageData", data=STACK, chunks=(1, 6, 9), maxshape=(None, 6, 9))
        file.flush()

        assert desk.counted(path, STACK.transpose(0, 2, 1)) == FRAMES - 1


def test_pzf_frames_in_hdf5_are_not_followed(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.h5"
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("PZFImageData", (1,), h5py.vlen_dtype(np.uint8))
        head = struct.pack("<2sBBBBcxqIIIIQffI12x", b"BD", 3, 1, 0, 0, b"C", 0, 0, 9, 6, 1, 0, 0.0, 1.0, 64)
        rows[0] = np.frombuffer(head + STACK[0].T.tobytes(), np.uint8)

    with pytest.raises(Invalid, match=r"pyme-h5-pzf cannot be read safely while they are written"):
        desk.look(path)


def test_a_pcs_folder_ends_with_its_events(tmp_path: Path, desk: Desk) -> None:
    folder = tmp_path / "series.pcs"
    folder.mkdir()
    for number, frame in enumerate(STACK):
        head = struct.pack(
            "<2sBBBBcxqIIIIQffI12x", b"BD", 3, 1, 0, 0, b"C", 0, number, 9, 6, 1, 0, 0.0, 1.0, 64
        )
        (folder / f"frame{number:05d}.pzf").write_bytes(head + frame.T.tobytes())
    assert desk.counted(folder) == FRAMES - 1
    assert not desk.ends(folder)

    (folder / "events.json").write_text("[]", encoding="utf-8")

    assert desk.ends(folder)
    assert desk.counted(folder) == FRAMES


def test_a_dax_grows_to_what_its_inf_says(tmp_path: Path, desk: Desk) -> None:
    path = tmp_path / "series.dax"
    path.with_suffix(".inf").write_text(
        "data type = 16 bit integers (binary, little endian)\nframe dimensions = 9 x 6\n"
        f"number of frames = {FRAMES}\n",
        encoding="utf-8",
    )
    counts = []
    for cut in range(STACK[0].nbytes, STACK.nbytes + 1, 7):
        path.write_bytes(STACK.tobytes()[:cut])
        counts.append(desk.counted(path))
        assert counts[-1] == cut // STACK[0].nbytes
    path.write_bytes(STACK.tobytes())

    assert desk.ends(path)


def test_frames_of_a_file_that_grows_are_never_sent_as_they_lie(tmp_path: Path) -> None:
    pages(tmp_path / "series.tif")
    store = SeriesStore([tmp_path])
    pinned = store.facts("series.tif", follow=True).fingerprint

    assert store.stored("series.tif", 0, 2, pinned=pinned) is None
    np.testing.assert_array_equal(store.frames("series.tif", 0, 2, pinned=pinned).frames, STACK[:2])
    with pytest.raises(NotFound, match="it may still be written"):
        store.place("series.tif", pinned=pinned)
    store.close()
