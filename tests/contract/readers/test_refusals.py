"""What no reader may accept, and that it says which file and why."""

from __future__ import annotations

import contextlib
import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.dataserver.readers.interface import SeriesReader
from cluster.dataserver.readers.registry import is_series_name, open_series
from cluster.errors import Invalid, NotFound

Opened = Callable[[Path], SeriesReader]

STACK = np.arange(6 * 8 * 10, dtype=np.uint16).reshape(6, 8, 10)


def _rgb(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 10, 3), np.uint8), photometric="rgb")


def _rgb_planar(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((3, 8, 10), np.uint8), photometric="rgb", planarconfig="separate")


def _complex(path: Path) -> None:
    tifffile.imwrite(path, STACK.astype(np.complex64))


def _bits(path: Path) -> None:
    tifffile.imwrite(path, STACK > 3, photometric="minisblack")


def _two_sizes(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0], metadata=None)
        writer.write(STACK[0, :4], metadata=None)


def _two_types(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(STACK[0], metadata=None)
        writer.write(STACK[0].astype(np.uint8), metadata=None)


def _two_channels(path: Path) -> None:
    tifffile.imwrite(path, STACK.reshape(3, 2, 8, 10), imagej=True, metadata={"axes": "TCYX"})


def _two_ome_channels(path: Path) -> None:
    tifffile.imwrite(
        path, STACK.reshape(3, 2, 8, 10), ome=True, metadata={"axes": "TCYX"}, photometric="minisblack"
    )


def _loop(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        for frame in STACK[:2]:
            writer.write(frame, contiguous=False, metadata=None)
    with tifffile.TiffFile(path) as tif:
        first, second = tif.pages[0], tif.pages[1]
        link = second.offset + 2 + 12 * len(second.tags)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, link, first.offset)
    path.write_bytes(data)


def _text(path: Path) -> None:
    path.write_text("this is no image at all, but long enough", encoding="utf-8")


def _nothing(path: Path) -> None:
    path.write_bytes(b"")


def _header_only(path: Path) -> None:
    path.write_bytes(b"II*\0\0\0\0\0")


def _first_page_cut(path: Path) -> None:
    tifffile.imwrite(path, STACK[0])
    path.write_bytes(path.read_bytes()[:300])


def _missing_codec(path: Path) -> None:
    tifffile.imwrite(path, STACK)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        at = tif.pages.first.tags["Compression"].offset + 8
    struct.pack_into("<H", data, at, 34712)
    path.write_bytes(data)


TIFFS: list[tuple[Callable[[Path], None], str]] = [
    (_rgb, "colour"),
    (_rgb_planar, "colour"),
    (_complex, "complex64"),
    (_bits, "bool|1 bit"),
    (_two_sizes, "page 1 of .* is 4 × 10 px"),
    (_two_types, "page 1 of .* 8 bit"),
    (_two_channels, "2 channels"),
    (_two_ome_channels, "2 channels"),
    (_loop, "loop"),
    (_text, "not a TIFF"),
    (_nothing, "empty"),
    (_header_only, "not a TIFF|cannot be read"),
    (_first_page_cut, "not one whole frame|cannot be read"),
]


@pytest.mark.parametrize(("write", "reason"), TIFFS, ids=lambda case: getattr(case, "__name__", ""))
def test_a_tiff_that_is_no_grey_series_is_refused_by_name_and_reason(
    tmp_path: Path, write: Callable[[Path], None], reason: str, open_it: Opened
) -> None:
    path = tmp_path / "cell 3.tif"
    write(path)

    with pytest.raises(Invalid, match=reason) as refusal:
        open_it(path)

    assert "cell 3.tif" in refusal.value.detail


def test_a_compression_that_needs_an_extra_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _missing_codec(tmp_path / "a.tif")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(Invalid, match=r"a\.tif is compressed with JPEG2000, .*clusterofone\[formats\]"):
        open_series(tmp_path / "a.tif")


def _h5(path: Path, fill: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def _external_link(file: h5py.File) -> None:
    file["ImageData"] = h5py.ExternalLink("other.h5", "/ImageData")


def _soft_link(file: h5py.File) -> None:
    file["elsewhere"] = STACK
    file["ImageData"] = h5py.SoftLink("/elsewhere")


def _external_storage(file: h5py.File) -> None:
    file.create_dataset("ImageData", STACK.shape, "u2", external=[("/etc/passwd", 0, STACK.nbytes)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(STACK.shape, "u2")
    layout[:] = h5py.VirtualSource("other.h5", "ImageData", shape=STACK.shape)
    file.create_virtual_dataset("ImageData", layout)


def _events_elsewhere(file: h5py.File) -> None:
    file["ImageData"] = STACK
    kind = np.dtype([("EventDescr", "S256"), ("EventName", "S32"), ("Time", "<f8")])
    file.create_dataset("Events", (2,), kind, external=[("/etc/passwd", 0, 2 * kind.itemsize)])


def _metadata_link(file: h5py.File) -> None:
    file["ImageData"] = STACK
    file.create_group("MetaData")["Camera"] = h5py.ExternalLink("other.h5", "/MetaData/Camera")


def _four_dimensions(file: h5py.File) -> None:
    file["ImageData"] = STACK[None]


def _no_frames(file: h5py.File) -> None:
    file["ImageData"] = STACK[:0]


def _pzf(file: h5py.File) -> None:
    file["PZFImageData"] = np.zeros(3)


def _localisations(file: h5py.File) -> None:
    file["FitResults"] = np.zeros(3)


def _colours(file: h5py.File) -> None:
    file["ImageData"] = STACK
    file["ImageData"].attrs["SizeC"] = 2


def _text_pixels(file: h5py.File) -> None:
    file["ImageData"] = np.full((2, 3, 4), b"x", "S3")


H5S: list[tuple[Callable[[h5py.File], None], str]] = [
    (_external_link, "links"),
    (_soft_link, "links"),
    (_external_storage, "other files"),
    (_virtual, "other files"),
    (_events_elsewhere, "keeps Events in other files"),
    (_metadata_link, "links"),
    (_four_dimensions, "frame, x, y"),
    (_no_frames, "no frames"),
    (_pzf, "PZF"),
    (_localisations, "is a result, not a series"),
    (_colours, "colours"),
    (_text_pixels, "S3"),
]


@pytest.mark.parametrize(("fill", "reason"), H5S, ids=lambda case: getattr(case, "__name__", ""))
def test_an_hdf5_file_that_is_no_series_or_reaches_outside_is_refused(
    tmp_path: Path, fill: Callable[[h5py.File], None], reason: str, open_it: Opened
) -> None:
    path = _h5(tmp_path / "series.h5", fill)

    with pytest.raises(Invalid, match=reason):
        open_it(path)


GOOD_YAML = "Byte Order: <\nData Type: uint16\nFrames: 6\nHeight: 8\nWidth: 10\n"
YAMLS = [
    ("", "series.raw needs series.yaml"),
    (GOOD_YAML.replace("Frames: 6", "Frames: 0"), "no frames"),
    (GOOD_YAML.replace("Frames: 6\n", ""), "'Frames' must be a whole number"),
    (GOOD_YAML.replace("Height: 8", "Height: eight"), "'Height' must be a whole number"),
    (GOOD_YAML.replace("Height: 8", "Height: 0"), "0 × 10"),
    (GOOD_YAML.replace("Height: 8", "Height: 800"), "less than one frame"),
    (GOOD_YAML.replace("uint16", "O"), "'O'"),
    (GOOD_YAML.replace("<", "sideways"), "sideways"),
    ("Byte Order: <\n  Data Type: [\n", "series.yaml, line"),
    ("!!python/object/apply:os.system ['true']\n", "series.yaml, line 1"),
]


@pytest.mark.parametrize(("text", "reason"), YAMLS)
def test_a_raw_file_without_a_sound_description_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "series.raw").write_bytes(STACK.tobytes())
    if text:
        (tmp_path / "series.yaml").write_text(text, encoding="utf-8")

    with pytest.raises(Invalid, match=reason):
        open_series(tmp_path / "series.raw")


GOOD_INF = (
    "data type = 16 bit integers (binary, big endian)\nframe dimensions = 10 x 8\nnumber of frames = 6\n"
)
INFS = [
    ("", "series.dax needs series.inf"),
    (GOOD_INF.replace("10 x 8", "10"), "frame dimensions"),
    (GOOD_INF.replace("= 6", "= many"), "number of frames"),
    (GOOD_INF.replace("16 bit", "12 bit"), "data type"),
    (GOOD_INF.replace("= 6", "= 0"), "no frames"),
]


@pytest.mark.parametrize(("text", "reason"), INFS)
def test_a_dax_file_without_a_sound_description_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "series.dax").write_bytes(STACK.tobytes())
    if text:
        (tmp_path / "series.inf").write_text(text, encoding="utf-8")

    with pytest.raises(Invalid, match=reason):
        open_series(tmp_path / "series.dax")


def test_a_dax_file_that_holds_more_than_it_says_gives_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "series.dax").write_bytes(STACK.astype(">u2").tobytes())
    (tmp_path / "series.inf").write_text(GOOD_INF.replace("= 6", "= 4"), encoding="utf-8")

    reader = open_series(tmp_path / "series.dax")
    frames, missing = reader.read(0, 4)
    reader.close()

    assert reader.shape.frames == 4
    np.testing.assert_array_equal(frames, STACK[:4])
    assert missing == ()


def test_a_raw_file_whose_byte_order_cannot_be_told_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 65536, (3, 30, 30)).astype("<u2")
    (tmp_path / "a.raw").write_bytes(noise.tobytes())
    summary = '{"Summary": {"Frames": 3, "PixelType": "GRAY16", "Height": 30, "Width": 30}}'
    (tmp_path / "metadata.txt").write_text(summary, encoding="utf-8")

    with pytest.raises(Invalid, match=r"byte order of a\.raw"):
        open_series(tmp_path / "a.raw")


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.tif"):
        open_series(tmp_path / "none.tif")


def test_a_file_of_no_known_format_is_refused_with_the_formats_there_are(tmp_path: Path) -> None:
    (tmp_path / "notes.doc").write_bytes(b"0123456789")

    with pytest.raises(Invalid, match=r"\.dax, \.dcimg, \.h5"):
        open_series(tmp_path / "notes.doc")


def test_a_tiff_of_another_suffix_is_known_by_its_beginning(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "series.stk", STACK)

    reader = open_series(tmp_path / "series.stk")
    reader.close()

    assert reader.shape.frames == 6


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("a.tif", True),
        ("A.TIFF", True),
        ("a.h5", True),
        ("a.h5r", False),
        ("a.hdf5", False),
        ("a.npy", False),
        ("a.spe", True),
        (".a.tif", False),
    ],
)
def test_results_and_hidden_files_are_no_series(name: str, listed: bool) -> None:
    assert is_series_name(name) is listed


ODD_TYPES = [
    ("int16", np.array([-5, 300]), "float32"),
    ("int8", np.array([-5, 100]), "float32"),
    ("int32", np.array([-5, 70000]), "float32"),
    ("uint32", np.array([5, 70000]), "float32"),
    ("float64", np.array([-0.5, 1e5]), "float32"),
    ("float16", np.array([-0.5, 12.25]), "float32"),
]


@pytest.mark.parametrize(("dtype", "values", "served"), ODD_TYPES)
def test_other_pixel_types_are_served_as_float_without_loss(
    tmp_path: Path, dtype: str, values: Any, served: str
) -> None:
    stack = np.resize(values, (2, 4, 6)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")

    reader = open_series(tmp_path / "a.tif")
    frames, _ = reader.read(0, 2)
    reader.close()

    assert frames.dtype == np.dtype(served)
    np.testing.assert_array_equal(frames, stack)


def test_whole_numbers_that_float_would_round_are_refused_by_frame(tmp_path: Path) -> None:
    stack = np.zeros((3, 4, 6), np.int32)
    stack[2, 1, 1] = 2**24 + 1
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    reader = open_series(tmp_path / "a.tif")

    with pytest.raises(Invalid, match=r"frame 2 of a\.tif"):
        reader.read(1, 3)
    reader.close()


SEEDS: dict[str, bytes] = {}


def _seed(name: str, folder: Path) -> bytes:
    if name not in SEEDS:
        path = folder / name
        if name.endswith(".h5"):
            _h5(
                path,
                lambda file: file.create_dataset(
                    "ImageData", data=STACK, chunks=(1, 8, 10), compression="gzip"
                ),
            )
        else:
            tifffile.imwrite(path, STACK, compression="zlib" if "deflate" in name else None)
        SEEDS[name] = path.read_bytes()
    return SEEDS[name]


@pytest.mark.parametrize("name", ["plain.tif", "deflate.tif", "series.h5"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6
    )
)
def test_damaged_files_are_refused_or_read_but_never_crash(
    tmp_path: Path, name: str, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(_seed(name, tmp_path))
    for at, new in changes:
        at %= len(data)
        data[at : at + len(new)] = new[: len(data) - at]
    (tmp_path / name).write_bytes(data)

    with contextlib.suppress(Invalid), contextlib.closing(open_series(tmp_path / name)) as reader:
        stop = min(reader.shape.frames, 64, (64 << 20) // reader.shape.frame_bytes)
        frames, _ = reader.read(0, stop)
        assert len(frames) == stop


@pytest.mark.parametrize("name", ["a.tif", "a.h5", "a.dax", "a.raw", "a.xyz"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    beginning=st.sampled_from([b"", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"\x89HDF\r\n\x1a\n"]),
    rest=st.binary(),
)
def test_bytes_of_any_kind_are_refused_or_read_but_never_crash(
    tmp_path: Path, name: str, beginning: bytes, rest: bytes
) -> None:
    (tmp_path / name).write_bytes(beginning + rest)

    refusal = _refusal(tmp_path / name)

    assert refusal is None or name in refusal


def _refusal(path: Path) -> str | None:
    try:
        open_series(path).close()
    except Invalid as refusal:
        return refusal.detail
    return None


def test_a_frame_file_that_holds_no_image_is_refused_by_name(tmp_path: Path) -> None:
    for number in range(2):
        tifffile.imwrite(tmp_path / f"img_{number}.tif", STACK[number])
    reader = open_series(tmp_path)
    reader._decode = lambda _: np.zeros(5, np.uint16)  # type: ignore[attr-defined]

    with pytest.raises(Invalid, match=r"img_1.tif\) is 5 px"):
        reader.read(1, 2)
    reader.close()
