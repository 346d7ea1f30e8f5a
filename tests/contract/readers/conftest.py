"""One writer per format, so that every reader can be asked the same questions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.protocol import NewSeries

Array = np.ndarray[Any, Any]
Writer = Callable[[Path, Array], Path]
FRAMES, HEIGHT, WIDTH = 13, 24, 36


@dataclass(frozen=True)
class Format:
    """How to write one format, and which pixel types it can hold."""

    name: str
    write: Writer
    dtypes: tuple[str, ...] = ("uint16", "uint8", "float32")


def _tiff(folder: Path, stack: Array, **options: Any) -> Path:
    path = folder / "series.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    return path


def _tiff_pages(folder: Path, stack: Array, **options: Any) -> Path:
    """Each page described before its pixels, and no word anywhere of how many there are."""
    path = folder / "series.tif"
    with tifffile.TiffWriter(path, **options) as writer:
        for frame in stack:
            writer.write(frame, contiguous=False, metadata=None, photometric="minisblack")
    return path


def _strips(folder: Path, stack: Array) -> Path:
    return _tiff(folder, stack, rowsperstrip=7)


def _deflate(folder: Path, stack: Array) -> Path:
    return _tiff(folder, stack, compression="zlib", predictor=stack.dtype.kind != "f", rowsperstrip=10)


def _tiled(folder: Path, stack: Array) -> Path:
    return _tiff(folder, stack, compression="zlib", tile=(16, 16))


def _ome(folder: Path, stack: Array) -> Path:
    path = folder / "series.ome.tif"
    tifffile.imwrite(path, stack, ome=True, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def _ome_of_two_files(folder: Path, stack: Array) -> Path:
    cut = len(stack) // 2
    names = ["series.ome.tif", "series_1.ome.tif"]
    parts = [stack[: cut or 1], stack[cut or 1 :]]
    xml = _ome_xml(stack, [(name, len(part)) for name, part in zip(names, parts, strict=True) if len(part)])
    for name, part in zip(names, parts, strict=True):
        if len(part):
            with tifffile.TiffWriter(folder / name) as writer:
                for number, frame in enumerate(part):
                    text = xml if number == 0 else None
                    writer.write(
                        frame, contiguous=False, metadata=None, description=text, photometric="minisblack"
                    )
    return folder / names[0]


def _ome_xml(stack: Array, parts: list[tuple[str, int]]) -> str:
    kind = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}[stack.dtype.name]
    blocks, first = "", 0
    for number, (name, length) in enumerate(parts):
        for page in range(length):
            blocks += (
                f'<TiffData IFD="{page}" FirstT="{first + page}" PlaneCount="1">'
                f'<UUID FileName="{name}">urn:uuid:{number}</UUID></TiffData>'
            )
        first += length
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{kind}" SizeX="{stack.shape[2]}" '
        f'SizeY="{stack.shape[1]}" SizeZ="1" SizeC="1" SizeT="{len(stack)}">{blocks}</Pixels></Image></OME>'
    )


def _imagej(folder: Path, stack: Array) -> Path:
    path = folder / "series.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TYX"})
    return path


def _imagej_raw_tail(folder: Path, stack: Array) -> Path:
    """Beyond 4 GB ImageJ describes the first frame only: the chain of pages ends there."""
    path = _imagej(folder, stack)
    with tifffile.TiffFile(path) as tif:
        page, order = tif.pages.first, "little" if tif.byteorder == "<" else "big"
        link = page.offset + 2 + 12 * len(page.tags)
    data = bytearray(path.read_bytes())
    data[link : link + 4] = (0).to_bytes(4, order)  # type: ignore[arg-type]
    end = page.dataoffsets[0] + stack.nbytes
    path.write_bytes(data[:end])
    return path


def _raw(folder: Path, stack: Array, order: str) -> Path:
    path = folder / "series.raw"
    path.write_bytes(stack.astype(stack.dtype.newbyteorder(order)).tobytes())  # type: ignore[arg-type]
    lines = {"Byte Order": order, "Data Type": stack.dtype.name, "Frames": len(stack)}
    lines |= {"Height": stack.shape[1], "Width": stack.shape[2]}
    path.with_suffix(".yaml").write_text(
        "".join(f"{k}: '{v}'\n" if isinstance(v, str) else f"{k}: {v}\n" for k, v in lines.items()), "utf-8"
    )
    return path


def _raw_micromanager(folder: Path, stack: Array) -> Path:
    path = folder / "series.ome.raw"
    path.write_bytes(stack.astype(">u2").tobytes())
    summary = {"Frames": len(stack), "Slices": 1, "Channels": 1, "PixelType": "GRAY16"}
    summary |= {"Height": stack.shape[1], "Width": stack.shape[2]}
    notes = {"Summary": summary, "FrameKey-0-0-0": {"Exposure-ms": 20.0}}
    (folder / "metadata.txt").write_text(json.dumps(notes), encoding="utf-8")
    return path


def _dax(folder: Path, stack: Array, order: str) -> Path:
    path = folder / "series.dax"
    bits = 8 * stack.dtype.itemsize
    path.write_bytes(stack.astype(stack.dtype.newbyteorder(">" if order == "big" else "<")).tobytes())
    path.with_suffix(".inf").write_text(
        f"binning = 1 x 1\ndata type = {bits} bit integers (binary, {order} endian)\n"
        f"frame dimensions = {stack.shape[2]} x {stack.shape[1]}\nnumber of frames = {len(stack)}\n"
        "x_start = 1\ny_start = 1\n",
        encoding="utf-8",
    )
    return path


def _h5(folder: Path, stack: Array, **options: Any) -> Path:
    path = folder / "series.h5"
    with h5py.File(path, "w") as file:
        file.create_group("MetaData/Camera").attrs["ADOffset"] = 100.0
        table = np.zeros(2, [("EventDescr", "S256"), ("EventName", "S32"), ("Time", "<f8")])
        table["EventName"] = b"StartAq"
        file.create_dataset("Events", data=table)
        file.create_dataset("ImageData", data=stack.transpose(0, 2, 1), **options)
    return path


def _h5_gzip(folder: Path, stack: Array) -> Path:
    chunks = (1, stack.shape[2], stack.shape[1])
    return _h5(folder, stack, chunks=chunks, compression="gzip", shuffle=True, maxshape=(None, *chunks[1:]))


def _h5_deep_chunks(folder: Path, stack: Array) -> Path:
    chunks = (4, stack.shape[2], stack.shape[1])
    return _h5(folder, stack, chunks=chunks, maxshape=(None, *chunks[1:]))


def _h5_pieces(folder: Path, stack: Array) -> Path:
    return _h5(folder, stack, chunks=(2, 16, 8), compression="gzip", maxshape=(None, *stack.shape[:0:-1]))


def _acquired(folder: Path, stack: Array) -> Path:
    """Whole chunks, and pieces of the last one."""
    acquisitions = Acquisitions([folder], reserve_bytes=0)
    size = {"height": stack.shape[1], "width": stack.shape[2], "dtype": stack.dtype.name}
    acquisitions.create("series.zarr", NewSeries(chunk_frames=4, **size))
    series = acquisitions.series("series.zarr")
    series.append(0, stack)
    series.complete(len(stack))
    return series.folder


FORMATS = [
    Format("tiff", _tiff),
    Format("bigtiff", lambda folder, stack: _tiff(folder, stack, bigtiff=True)),
    Format("big-endian tiff", lambda folder, stack: _tiff(folder, stack, byteorder=">")),
    Format("tiff of plain pages", _tiff_pages),
    Format(
        "bigtiff of plain pages",
        lambda folder, stack: _tiff_pages(folder, stack, bigtiff=True, byteorder=">"),
    ),
    Format("tiff in strips", _strips),
    Format("tiff deflated", _deflate),
    Format("tiff tiled", _tiled),
    Format("ome-tiff", _ome),
    Format("ome-tiff of two files", _ome_of_two_files),
    Format("imagej", _imagej),
    Format("imagej raw tail", _imagej_raw_tail),
    Format("raw", lambda folder, stack: _raw(folder, stack, "<")),
    Format("raw big-endian", lambda folder, stack: _raw(folder, stack, ">")),
    Format("raw of Micro-Manager", _raw_micromanager, ("uint16",)),
    Format("dax", lambda folder, stack: _dax(folder, stack, "big"), ("uint16",)),
    Format("dax little-endian", lambda folder, stack: _dax(folder, stack, "little"), ("uint16", "uint8")),
    Format("pyme h5", _h5_gzip),
    Format("pyme h5 contiguous", _h5),
    Format("pyme h5 deep chunks", _h5_deep_chunks),
    Format("pyme h5 in pieces", _h5_pieces),
    Format("acquired", _acquired),
]


def camera_frames(frames: int = FRAMES, dtype: str = "uint16") -> Array:
    """Return frames like a camera's: smooth, noisy, no two alike, and none the same when transposed or flipped."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    mean = 90 + x + 0.3 * y + 2.0 * np.arange(frames)[:, None, None]
    return rng.poisson(mean).clip(1, 255).astype(dtype)


@pytest.fixture(params=FORMATS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Format:
    found: Format = request.param
    return found


@pytest.fixture
def frames_of() -> Callable[..., Array]:
    return camera_frames
