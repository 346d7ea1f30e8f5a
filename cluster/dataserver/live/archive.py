"""The chunks of a complete series put together into few large files, by Zarr's sharding codec.

A shard holds the chunks' bytes as they were, then (offset, bytes) of each, then a checksum of these: nothing is
compressed anew.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from cluster.blocks import crc32c, unsealed
from cluster.dataserver.live.durable import write_synced, write_whole
from cluster.dataserver.live.layout import ARCHIVE, ARRAY, DOCUMENT, Layout, array_document, chunk_name
from cluster.errors import ChecksumMismatch, Conflict
from cluster.results.publish import sync_folder

_ENTRY: Final = struct.Struct("<QQ")
_ABSENT: Final = (2**64 - 1, 2**64 - 1)
_CRC_BYTES: Final = 4


def make(folder: Path, layout: Layout, frames: int, chunks: Collection[int]) -> None:
    """Write the archive of a series beside its array, and read back every chunk.

    Raises
    ------
    Conflict
        If a chunk is damaged, or does not come back as it was.
    """
    target = folder / ARCHIVE
    shutil.rmtree(target, ignore_errors=True)  # of an attempt that was interrupted
    target.mkdir()
    try:
        for shard in sorted({chunk // layout.shard_chunks for chunk in chunks}):
            write_synced(target / chunk_name(shard), _Shard(folder, layout, shard, chunks).parts())
        _compare(folder, layout, chunks)
    except ChecksumMismatch as error:
        shutil.rmtree(target, ignore_errors=True)
        raise Conflict(f"{folder.name} stays as it is: {error.detail}") from error
    write_whole(target / DOCUMENT, [array_document(layout, frames, shard_chunks=layout.shard_chunks)])
    sync_folder(folder)


def _compare(folder: Path, layout: Layout, chunks: Collection[int]) -> None:
    for chunk in chunks:
        if chunk_bytes(folder, layout, chunk) != _single(folder, chunk):
            raise ChecksumMismatch(f"chunk {chunk} did not come back from the archive as it was")


def chunk_bytes(folder: Path, layout: Layout, chunk: int) -> bytes:
    """Return a chunk of an archive as it would lie in a file of its own.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ChecksumMismatch
        If the shard's index is damaged.
    """
    shard, within = divmod(chunk, layout.shard_chunks)
    index_bytes = layout.shard_chunks * _ENTRY.size + _CRC_BYTES
    with (folder / ARCHIVE / chunk_name(shard)).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - index_bytes))
        index = unsealed(file.read(index_bytes), f"the index of shard {shard}")
        if len(index) != layout.shard_chunks * _ENTRY.size:
            raise ChecksumMismatch(f"shard {shard} is cut short")
        offset, length = _ENTRY.unpack_from(index, within * _ENTRY.size)
        if (offset, length) == _ABSENT:
            raise FileNotFoundError(f"chunk {chunk} is not in shard {shard}")
        file.seek(offset)
        return file.read(length)


def size(folder: Path) -> int:
    """Return the bytes of an archive's files, 0 if there is none."""
    try:
        return sum(file.stat().st_size for file in (folder / ARCHIVE).iterdir())
    except OSError:
        return 0


def remove_unused(folder: Path, used: str) -> None:
    """Remove the array that is not in use, if there are two."""
    unused = ARRAY if used == ARCHIVE else ARCHIVE
    if (folder / unused).is_dir() and (folder / used / DOCUMENT).is_file():
        shutil.rmtree(folder / unused, ignore_errors=True)


class _Shard:
    """One file of an archive, made chunk by chunk."""

    def __init__(self, folder: Path, layout: Layout, shard: int, chunks: Collection[int]) -> None:
        self._folder = folder
        first = shard * layout.shard_chunks
        self._chunks = [
            chunk if chunk in chunks else None for chunk in range(first, first + layout.shard_chunks)
        ]

    def parts(self) -> Iterator[bytes]:
        """Yield the chunks, having checked each, and then the index."""
        index, at = b"", 0
        for chunk in self._chunks:
            if chunk is None:
                index += _ENTRY.pack(*_ABSENT)
                continue
            data = _single(self._folder, chunk)
            unsealed(data, f"chunk {chunk}")
            index += _ENTRY.pack(at, len(data))
            at += len(data)
            yield data
        yield index + crc32c(index)


def _single(folder: Path, chunk: int) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return (folder / ARRAY / chunk_name(chunk)).read_bytes()
    raise ChecksumMismatch(f"the file of chunk {chunk} is gone")
