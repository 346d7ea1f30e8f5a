"""What lies in the folder of an acquired series: names, and the `zarr.json` that make it OME-Zarr for other programs.

cell1.zarr/zarr.json          group: OME-Zarr (NGFF 0.5), and our own attributes under `clusterofone`
cell1.zarr/0/zarr.json        the array (t, y, x)
cell1.zarr/0/c.7.0.0          chunk 7, written whole
cell1.zarr/staged/7.frames    frames of chunk 7 that arrived in pieces, until the chunk is whole
cell1.zarr/events.jsonl       events
cell1.zarr/archive/           the array again, many chunks to a file, once it has been archived
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cluster.errors import Invalid
from cluster.protocol import NewSeries

SUFFIX: Final = ".zarr"
DOCUMENT: Final = "zarr.json"
ARRAY: Final = "0"
ARCHIVE: Final = "archive"
STAGED: Final = "staged"
EVENTS: Final = "events.jsonl"
_OURS: Final = "clusterofone"
_CHUNK_BYTES: Final = 8 << 20
_SHARD_BYTES: Final = 512 << 20
_MOST_IN_SHARD: Final = 256
_MAX_DOCUMENT_BYTES: Final = 8 << 20


@dataclass(frozen=True)
class Layout:
    """How the frames of a series are cut into chunks."""

    height: int
    width: int
    dtype: np.dtype[Any]
    chunk_frames: int

    @property
    def frame_bytes(self) -> int:
        """Return the size of a frame."""
        return self.height * self.width * self.dtype.itemsize

    @property
    def chunk_bytes(self) -> int:
        """Return the size of a chunk before it is compressed."""
        return self.frame_bytes * self.chunk_frames

    @property
    def shard_chunks(self) -> int:
        """Return how many chunks lie in one file of an archive."""
        return min(max(1, _SHARD_BYTES // self.chunk_bytes), _MOST_IN_SHARD)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """Return the frames [start, stop) of a chunk."""
        return chunk * self.chunk_frames, (chunk + 1) * self.chunk_frames

    def chunks(self, start: int, stop: int) -> range:
        """Return the chunks that hold frames [start, stop)."""
        return range(start // self.chunk_frames, -(-stop // self.chunk_frames))


@dataclass(frozen=True)
class Record:
    """What the group says of the series. `frames` and `missing` are only known of one that is complete."""

    identity: str
    created: NewSeries
    chunk_frames: int
    complete: bool = False
    frames: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    array: str = ARRAY

    @property
    def layout(self) -> Layout:
        """Return how the frames are cut into chunks."""
        made = self.created
        return Layout(made.height, made.width, np.dtype(made.dtype), self.chunk_frames)


def layout_of(created: NewSeries) -> Layout:
    """Return the layout of a new series: chunks of about 8 MB, unless it says otherwise."""
    dtype = np.dtype(created.dtype)
    suits = max(1, _CHUNK_BYTES // (created.height * created.width * dtype.itemsize))
    return Layout(created.height, created.width, dtype, created.chunk_frames or min(suits, 4096))


def chunk_name(chunk: int) -> str:
    """Return the name of a chunk's file, or of a shard's."""
    return f"c.{chunk}.0.0"


def chunk_of(name: str) -> int | None:
    """Return the chunk whose file has this name, or None if it is another file."""
    number = name.removeprefix("c.").removesuffix(".0.0")
    return int(number) if name == f"c.{number}.0.0" and number.isascii() and number.isdigit() else None


def staged_name(chunk: int) -> str:
    """Return the name of the file of a chunk's frames that arrived in pieces."""
    return f"{chunk}.frames"


def staged_chunk_of(name: str) -> int | None:
    """Return the chunk whose pieces a file of this name holds, or None if it is another file."""
    number = name.removesuffix(".frames")
    return int(number) if number != name and number.isascii() and number.isdigit() else None


def group_document(name: str, record: Record) -> bytes:
    """Return the `zarr.json` of the folder."""
    ours = {
        "version": 1,
        "identity": record.identity,
        "created": record.created.model_dump(mode="json"),
        "chunk_frames": record.chunk_frames,
        "complete": record.complete,
        "frames": record.frames,
        "missing": [list(found) for found in record.missing],
        "array": record.array,
    }
    attributes = {"ome": _ome(name, record), _OURS: ours}
    return _as_json({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def array_document(layout: Layout, frames: int, *, shard_chunks: int = 0) -> bytes:
    """Return the `zarr.json` of the array; `shard_chunks` chunks in each file, 0: each in its own."""
    codecs: list[dict[str, Any]] = _chunk_codecs(layout)
    grid = [layout.chunk_frames, layout.height, layout.width]
    if shard_chunks:
        sharding = {
            "chunk_shape": list(grid),
            "codecs": codecs,
            "index_codecs": [_codec("bytes", endian="little"), {"name": "crc32c"}],
            "index_location": "end",
        }
        codecs = [_codec("sharding_indexed", **sharding)]
        grid[0] *= shard_chunks
    return _as_json(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [frames, layout.height, layout.width],
            "data_type": layout.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": grid}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0,
            "codecs": codecs,
            "attributes": {},
            "dimension_names": ["t", "y", "x"],
        }
    )


def is_acquired(folder: Path) -> bool:
    """Return whether a folder is a series that was acquired through a data server."""
    try:
        return folder.suffix.lower() == SUFFIX and read_record(folder) is not None
    except (OSError, Invalid):
        return False


def read_record(folder: Path) -> Record | None:
    """Return what a folder's group says, or None if it is somebody else's Zarr.

    Raises
    ------
    FileNotFoundError
        If there is no group.
    Invalid
        If it is ours and cannot be understood.
    """
    with (folder / DOCUMENT).open("rb") as file:
        text = file.read(_MAX_DOCUMENT_BYTES)
    try:
        ours = json.loads(text)["attributes"][_OURS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    try:
        return _record(ours)
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{folder.name}/{DOCUMENT} is not as this version of clusterofone writes it") from error


def _record(ours: Mapping[str, Any]) -> Record:
    if ours["version"] != 1 or ours["array"] not in {ARRAY, ARCHIVE}:
        raise ValueError(ours["version"])
    return Record(
        identity=str(ours["identity"]),
        created=NewSeries.model_validate(ours["created"]),
        chunk_frames=_positive(ours["chunk_frames"]),
        complete=bool(ours["complete"]),
        frames=int(ours["frames"]),
        missing=tuple((int(start), int(stop)) for start, stop in ours["missing"]),
        array=str(ours["array"]),
    )


def _positive(value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(value)
    return value


def _chunk_codecs(layout: Layout) -> list[dict[str, Any]]:
    size = layout.dtype.itemsize
    blosc = _codec("blosc", cname="lz4", clevel=5, shuffle="bitshuffle", typesize=size, blocksize=0)
    return [_codec("bytes", endian="little"), blosc, {"name": "crc32c"}]


def _codec(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _ome(name: str, record: Record) -> dict[str, Any]:
    known = record.created.metadata
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}]
    scale = [1.0]
    time_s = _length(known.get("Camera.CycleTime"))
    if time_s:
        axes[0]["unit"], scale[0] = "second", time_s
    for axis in "yx":
        size_um = _length(known.get(f"voxelsize.{axis}"))
        axes.append({"name": axis, "type": "space", **({"unit": "micrometer"} if size_um else {})})
        scale.append(size_um or 1.0)
    scaled = [{"type": "scale", "scale": scale}]
    datasets = [{"path": record.array, "coordinateTransformations": scaled}]
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def _length(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 < value < 1e9 else None


def _as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8")
