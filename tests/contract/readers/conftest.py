"""One writer per format, so that every reader can be asked the same questions."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from cluster.dataserver.live.acquisitions import Acquisitions
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.readers.conformance import Array, Format, camera_frames, cut_short
from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.ndtiff import INDEX
from cluster.dataserver.readers.registry import open_series
from cluster.protocol import NewSeries
from tests.contract.readers import vendor_files


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


def pzf(frame: Array, *, coded: bool, number: int = 0) -> bytes:
    """One PZF frame as PYME writes it: x first; Huffman coded by a tree of eight levels, or raw."""
    across = np.ascontiguousarray(frame.T)
    kind = ["uint8", "uint16", "float32"].index(across.dtype.name)
    header = struct.pack(
        "<2sBBBBcxqIIIIQffI12x",
        *(b"BD", 3, kind, int(coded), 0, b"C", 0, number, *across.shape, 1, 0, 0.0, 1.0, 64),
    )
    return header + (huffman(across.tobytes()) if coded else across.tobytes())


def huffman(data: bytes) -> bytes:
    """A Huffman stream of these bytes; the more of a byte there are, the shorter its code."""
    values, counts = np.unique(np.frombuffer(data, np.uint8), return_counts=True)
    trees: list[tuple[int, Any]] = sorted(zip(counts.tolist(), values.tolist(), strict=True))
    while len(trees) > 1:
        (a, left), (b, right), *rest = trees
        trees = sorted([*rest, (a + b, (left, right))], key=lambda tree: tree[0])
    codes: dict[int, str] = {}

    def described(tree: Any, code: str) -> str:
        if isinstance(tree, int):
            codes[tree] = code or "0"
            return f"1{tree:08b}"
        return "0" + described(tree[0], code + "0") + described(tree[1], code + "1")

    bits = described(trees[0][1], "") + "".join(codes[byte] for byte in data)
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def _pcs(folder: Path, stack: Array, *, coded: bool) -> Path:
    series = folder / "series.pcs"
    series.mkdir()
    (series / "metadata.json").write_text('{"Camera.ADOffset": 100.0}', encoding="utf-8")
    for number, frame in enumerate(stack):
        (series / f"frame{number:05d}.pzf").write_bytes(pzf(frame, coded=coded, number=number))
    (series / "events.json").write_text('[["StartAq", "0", 1.5]]', encoding="utf-8")
    return series


def _h5_pzf(folder: Path, stack: Array) -> Path:
    """Rows in the order in which frames came, each noted in the index."""
    path = folder / "series.h5"
    order = [*range(1, len(stack), 2), *range(0, len(stack), 2)]
    with h5py.File(path, "w") as file:
        table = np.array([(n, row) for row, n in enumerate(order)], [("FrameNum", "i4"), ("Position", "i4")])
        file["PZFImageIndex"] = table
        rows = file.create_dataset("PZFImageData", (len(stack),), h5py.vlen_dtype(np.uint8))
        for row, number in enumerate(order):
            rows[row] = np.frombuffer(pzf(stack[number], coded=True, number=number), np.uint8)
    return path


def _hdf5_dataset(folder: Path, stack: Array, *, named: bool) -> Path:
    path = folder / "series.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/images", data=stack, chunks=(1, *stack.shape[1:]))
        if named:
            file["entry/others"] = np.zeros((2, 3, 4), np.uint16)
    return path.with_name("series.h5!entry!images") if named else path


def _cut_named(path: Path, kept: float) -> None:
    cut_short(path.with_name("series.h5"), kept)


def _npy(folder: Path, stack: Array, order: str = "<") -> Path:
    path = folder / "series.npy"
    np.save(path, stack.astype(stack.dtype.newbyteorder(order)))  # type: ignore[arg-type]
    return path


def spe(folder: Path, stack: Array) -> Path:
    path, header = folder / "series.spe", bytearray(4100)
    kind = {"float32": 0, "uint16": 3, "uint8": 6}[stack.dtype.name]
    for at, code, value in (
        (10, "f", 0.02), (42, "H", stack.shape[2]), (108, "h", kind), (656, "H", stack.shape[1]),
        (1446, "i", len(stack)), (1510, "h", 1),
    ):  # fmt: skip
        struct.pack_into(f"<{code}", header, at, value)
    path.write_bytes(bytes(header) + stack.tobytes())
    return path


def _zarr(folder: Path, stack: Array, **options: Any) -> Path:
    path = folder / "series.zarr"
    chunks = options.pop("chunks", (1, *stack.shape[1:]))
    array = zarr.create_array(path, shape=stack.shape, chunks=chunks, dtype=stack.dtype, **options)
    array[:] = stack
    return path


def _ome_zarr(folder: Path, stack: Array) -> Path:
    path = folder / "series.ome.zarr"
    scales = [{"datasets": [{"path": "0"}], "axes": [{"name": axis} for axis in "tczyx"]}]
    group = zarr.open_group(path, mode="w", attributes={"ome": {"version": "0.5", "multiscales": scales}})
    shape = (len(stack), 1, 1, *stack.shape[1:])
    group.create_array("0", shape=shape, chunks=(1, *shape[1:]), dtype=stack.dtype)[:] = stack.reshape(shape)
    return path


def lose_files(path: Path, kept: float) -> None:
    """Files of the middle are gone."""
    files = [
        file
        for file in path.rglob("*")
        if file.is_file() and file.suffix != ".json" and not file.name.startswith(".z")
    ]
    files.sort(key=lambda file: (len(str(file)), str(file)))
    lost = max(1, int((1 - kept) * len(files)))
    for file in files[1 : 1 + lost]:
        file.unlink()


def _separate_tiffs(folder: Path, stack: Array) -> Path:
    """Numbers that sort otherwise as text, and do not begin at 0."""
    series = folder / "series"
    series.mkdir()
    for number, frame in enumerate(stack):
        tifffile.imwrite(series / f"img_{number + 5}_Default_000.tif", frame, photometric="minisblack")
    return series


def _ndtiff(folder: Path, stack: Array) -> Path:
    """By its description: pixels in the file, and an index of where."""
    series, entries, pixels = folder / "series", b"", b"II*\0" + bytes(12)
    series.mkdir()
    for number, frame in enumerate(stack):
        axes, name = json.dumps({"time": number, "channel": "a"}).encode(), b"series_NDTiffStack.tif"
        entries += struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name
        kind = {"uint8": 0, "uint16": 1}[frame.dtype.name]
        entries += struct.pack("<8I", len(pixels), frame.shape[1], frame.shape[0], kind, 0, 0, 0, 0)
        pixels += frame.tobytes() + b"metadata"
    (series / INDEX).write_bytes(entries)
    (series / "series_NDTiffStack.tif").write_bytes(pixels)
    return series


def _cut_ndtiff(path: Path, kept: float) -> None:
    cut_short(path / "series_NDTiffStack.tif", kept)


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
    Format("acquired", _acquired, cut=lose_files),
    Format("pyme h5 of pzf", _h5_pzf, cut=None),
    Format("pcs", lambda folder, stack: _pcs(folder, stack, coded=False), cut=lose_files),
    Format("pcs huffman", lambda folder, stack: _pcs(folder, stack, coded=True), cut=lose_files),
    Format("hdf5 with one array", lambda folder, stack: _hdf5_dataset(folder, stack, named=False)),
    Format("hdf5 by path", lambda folder, stack: _hdf5_dataset(folder, stack, named=True), cut=_cut_named),
    Format("npy", _npy),
    Format("npy big-endian", lambda folder, stack: _npy(folder, stack, ">")),
    Format("spe", spe),
    Format("zarr", _zarr, cut=lose_files),
    Format("zarr 2", lambda folder, stack: _zarr(folder, stack, zarr_format=2), cut=lose_files),
    Format("zarr in pieces", lambda folder, stack: _zarr(folder, stack, chunks=(2, 16, 20)), cut=lose_files),
    Format(
        "zarr in shards",
        lambda folder, stack: _zarr(folder, stack, shards=(4, *stack.shape[1:])),
        cut=lose_files,
    ),
    Format("ome-zarr", _ome_zarr, cut=lose_files),
    Format("tiff sequence", _separate_tiffs, cut=lose_files),
    Format("ndtiff", _ndtiff, ("uint16", "uint8"), cut=_cut_ndtiff),
    Format("dcimg", vendor_files.dcimg, ("uint16", "uint8")),
    Format("dcimg 0.7", vendor_files.dcimg_old, ("uint16", "uint8"), cut=None),
    Format("czi", vendor_files.czi, cut=None),
    Format("nd2", vendor_files.nd2, cut=None),
]


@pytest.fixture(params=FORMATS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Format:
    found: Format = request.param
    return found


@pytest.fixture(scope="session")
def parsers() -> Iterator[Parsers]:
    """One process that parses what all these tests have opened apart."""
    made = Parsers()
    yield made
    made.close()


@pytest.fixture(params=["here", "apart"])
def open_it(request: pytest.FixtureRequest) -> Callable[[Path], SeriesReader]:
    """Open a series in this process, and in the one in which a data server has files parsed."""
    if request.param == "here":
        return open_series
    made: Parsers = request.getfixturevalue("parsers")
    return made.open


@pytest.fixture
def frames_of() -> Callable[..., Array]:
    return camera_frames
