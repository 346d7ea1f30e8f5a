"""The pages of a TIFF file, indexed in one walk along their chain: where each page's pixels lie, and of what form.

A walk takes two small reads a page and keeps a few numbers of it, so a file of 100,000 pages opens in a second and
its truncated pages are known before anyone asks for them.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Mapping
from io import FileIO
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from cluster.errors import Invalid

_DEFAULTS: Final = {258: 1, 259: 1, 277: 1, 278: 0xFFFFFFFF, 284: 1, 317: 1, 322: 0, 323: 0, 339: 1}
_FORM_TAGS: Final = (256, 257, 258, 259, 277, 284, 317, 322, 323, 339)
_ROWS_PER_STRIP: Final = 278
_FORM_TAGS_AND_ROWS: Final = (*_FORM_TAGS, _ROWS_PER_STRIP)
_OFFSETS, _TILE_OFFSETS, _COUNTS, _TILE_COUNTS = 273, 324, 279, 325
_SIZES: Final = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
_CODES: Final = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_DESCRIPTION, _END_BYTES = 270, 64
_MAX_ENTRIES: Final = 4096
_MAX_SEGMENTS: Final = 1 << 20
_ABSURD: Final = 1 << 60
_NEAR_BYTES: Final = 4096
_AHEAD_BYTES: Final = 1 << 16

Entries = Mapping[int, tuple[int, int, bytes]]  # tag: (type, count, value or where it is)
Integers = np.ndarray[Any, np.dtype[np.int64]]


class Dialect:
    """Byte order and flavour of a TIFF file: how offsets, numbers of entries and entries are packed."""

    def __init__(self, order: str, *, big: bool, first_ifd: int) -> None:
        self.order = order
        self.first_ifd = first_ifd
        self.offset = struct.Struct(f"{order}{'Q' if big else 'I'}")
        self.count = struct.Struct(f"{order}{'Q' if big else 'H'}")
        self.entry = struct.Struct(f"{order}HHQ8s" if big else f"{order}HHI4s")
        self.endian: Literal["little", "big"] = "little" if order == "<" else "big"


class Page(NamedTuple):
    """One page: its pixels lie in [first, end) when `joined`, else in segments to be looked up."""

    first: int
    end: int
    segments: int
    joined: bool


_NOWHERE: Final = Page(first=0, end=0, segments=0, joined=False)


class PageIndex:
    """All pages of one file, compactly. `broken`: the chain points at a page that is not there."""

    def __init__(self) -> None:
        self.ifds, self.first, self.end = array("q"), array("q"), array("q")
        self.joined, self.single = array("b"), array("b")
        self.form: tuple[int, ...] = ()
        self.broken = False

    def add(self, ifd: int, page: Page) -> None:
        """Append a page."""
        self.ifds.append(ifd)
        self.first.append(page.first)
        self.end.append(page.end)
        self.joined.append(page.joined)
        self.single.append(page.segments == 1)

    def __len__(self) -> int:
        return len(self.ifds)

    def without_last(self) -> PageIndex:
        """Return a copy without the last page, whose successor may have been written since."""
        copy = PageIndex()
        copy.ifds, copy.first, copy.end = self.ifds[:-1], self.first[:-1], self.end[:-1]
        copy.joined, copy.single, copy.form = self.joined[:-1], self.single[:-1], self.form
        return copy


class Window:
    """Small reads of a file; where they follow each other closely, one large read serves many of them.

    A share answers each read after a while: descriptions that lie side by side must not cost one wait each.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._first, self._held, self._last = 0, b"", 0

    def at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on; fewer where the file ends."""
        if offset >= self._size:
            return b""
        skip = offset - self._first
        if skip < 0 or skip + length > len(self._held):
            ahead = _AHEAD_BYTES if 0 < offset - self._last < _NEAR_BYTES else 0
            self._file.seek(offset)
            self._first, self._held = offset, self._file.read(max(length, ahead)) or b""
            skip = 0
        self._last = offset
        return self._held[skip : skip + length]


def read_dialect(file: Window, name: str) -> Dialect:
    """Return byte order, flavour and where the first page is described; raises `Invalid` if this is no TIFF."""
    head = file.at(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise Invalid(f"{name} is not a TIFF file")
    (magic,) = struct.unpack_from(f"{order}H", head, 2)
    if magic == 43 and len(head) == 16:
        return Dialect(order, big=True, first_ifd=struct.unpack_from(f"{order}Q", head, 8)[0])
    if magic != 42:
        raise Invalid(f"{name} is not a TIFF file")
    return Dialect(order, big=False, first_ifd=struct.unpack_from(f"{order}I", head, 4)[0])


def is_single_image(file: Window, name: str) -> bool:
    """Return whether a file holds one page and no OME-XML; raises `Invalid` if it is no TIFF.

    Looked at when a folder is listed, so by these few reads and nothing else.
    """
    dialect = read_dialect(file, name)
    entries, following = read_entries(file, dialect, dialect.first_ifd)
    if entries is None:
        return False
    second = read_entries(file, dialect, following)[0] if following else None
    return second is None and not _description_end(file, dialect, entries).rstrip(b"\0 \r\n\t").endswith(
        b"OME>"
    )


def _description_end(file: Window, dialect: Dialect, entries: Entries) -> bytes:
    """Return the last bytes of the first page's description."""
    _, count, value = entries.get(_DESCRIPTION, (2, 0, b""))
    if count <= len(value):
        return value[:count]
    (where,) = dialect.offset.unpack_from(value)
    return file.at(where + max(0, count - _END_BYTES), min(count, _END_BYTES))


def walk(file: Window, dialect: Dialect, name: str, known: PageIndex | None = None) -> PageIndex:
    """Return where every page lies; of those `known` only the last is read again.

    Raises
    ------
    Invalid
        If pages differ in size or type (names the page), or form a loop.
    """
    index, ifd = PageIndex(), dialect.first_ifd
    if known:
        index, ifd = known.without_last(), known.ifds[-1]
    seen, last_stated = set(index.ifds), list[tuple[int, int, bytes] | None]()
    while ifd:
        if ifd in seen:
            raise Invalid(
                f"the pages of {name} form a loop after page {len(index) - 1}", frame=len(index) - 1
            )
        seen.add(ifd)
        entries, following = read_entries(file, dialect, ifd)
        if entries is None:
            index.broken = True
            break
        stated = [entries.get(tag) for tag in _FORM_TAGS_AND_ROWS]
        if stated != last_stated:
            form, last_stated = _form(dialect, entries), stated
            index.form = index.form or form
            if form != index.form:
                raise Invalid(_differs(name, len(index), index.form, form), frame=len(index))
        index.add(ifd, _page(file, dialect, entries))
        if following is None:
            index.broken = True
            break
        ifd = following
    return index


def _differs(name: str, page: int, first: tuple[int, ...], other: tuple[int, ...]) -> str:
    def said(form: tuple[int, ...]) -> str:
        return f"{form[1]} × {form[0]} px of {form[2]} bit"

    if first[:3] != other[:3]:
        return f"page {page} of {name} is {said(other)}, page 0 is {said(first)}: a series has frames of one kind"
    return f"page {page} of {name} is stored in another way than page 0: a series has frames of one kind"


def read_entries(file: Window, dialect: Dialect, ifd: int) -> tuple[Entries | None, int | None]:
    """Return the entries at `ifd` and where the next page is described; None for what the file does not hold."""
    count_bytes, entry = dialect.count.size, dialect.entry
    raw = file.at(ifd, 512)
    if len(raw) < count_bytes:
        return None, None
    (count,) = dialect.count.unpack_from(raw)
    length = count_bytes + count * entry.size
    if not 0 < count <= _MAX_ENTRIES:
        return None, None
    if len(raw) < length + dialect.offset.size:
        raw = file.at(ifd, length + dialect.offset.size)
    if len(raw) < length:
        return None, None
    entries = {tag: (kind, n, value) for tag, kind, n, value in entry.iter_unpack(raw[count_bytes:length])}
    if len(raw) < length + dialect.offset.size:
        return entries, None
    return entries, dialect.offset.unpack_from(raw, length)[0]


def segments(file: Window, dialect: Dialect, ifd: int) -> tuple[Integers, Integers]:
    """Return offsets and byte counts of a page's strips or tiles, as the file says; empty if it does not."""
    entries, _ = read_entries(file, dialect, ifd)
    return _segments(file, dialect, entries or {})


def _segments(file: Window, dialect: Dialect, entries: Entries) -> tuple[Integers, Integers]:
    tiled = _TILE_OFFSETS in entries
    offsets = _values(file, dialect, entries.get(_TILE_OFFSETS if tiled else _OFFSETS))
    counts = _values(file, dialect, entries.get(_TILE_COUNTS if tiled else _COUNTS))
    if counts.size != offsets.size:
        counts = np.zeros_like(offsets)
    return offsets, counts


def _form(dialect: Dialect, entries: Entries) -> tuple[int, ...]:
    form = tuple(_number(dialect, entries, tag) for tag in _FORM_TAGS)
    if _number(dialect, entries, 259) != 1:
        form = (*form, _number(dialect, entries, _ROWS_PER_STRIP))
    return form


def _page(file: Window, dialect: Dialect, entries: Entries) -> Page:
    strips, counts = entries.get(_OFFSETS), entries.get(_COUNTS)
    if strips is not None and counts is not None and strips[1] == counts[1] == 1:
        first, length = _number(dialect, entries, _OFFSETS), _number(dialect, entries, _COUNTS)
        sound = 0 < first < _ABSURD and 0 <= length < _ABSURD
        return Page(first, first + length, segments=1, joined=True) if sound else _NOWHERE
    offsets, lengths = _segments(file, dialect, entries)
    if offsets.size == 0:
        return _NOWHERE
    ends = offsets + lengths
    joined = offsets.size == 1 or bool((ends[:-1] == offsets[1:]).all())
    return Page(int(offsets[0]), int(ends.max()), offsets.size, joined)


def _number(dialect: Dialect, entries: Entries, tag: int) -> int:
    """Return a tag's one number; for one with several, minus how many there are."""
    entry = entries.get(tag)
    if entry is None:
        return _DEFAULTS.get(tag, 0)
    kind, count, value = entry
    if count != 1 or kind not in _SIZES:
        return -int(count)
    return int.from_bytes(value[: _SIZES[kind]], dialect.endian)


def _values(file: Window, dialect: Dialect, entry: tuple[int, int, bytes] | None) -> Integers:
    if entry is None or entry[0] not in _SIZES or not 0 < entry[1] <= _MAX_SEGMENTS:
        return np.zeros(0, np.int64)
    kind, count, value = entry
    length = count * _SIZES[kind]
    if length > len(value):
        (where,) = dialect.offset.unpack_from(value)
        value = file.at(where, length)
    if len(value) < length:
        return np.zeros(0, np.int64)
    found = np.frombuffer(value[:length], dialect.order + _CODES[kind]).astype(np.int64)
    return found if (found >= 0).all() and (found < _ABSURD).all() else np.zeros(0, np.int64)
