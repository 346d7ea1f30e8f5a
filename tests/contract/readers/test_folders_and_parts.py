"""What only some formats have: parts of a shard, arrays in Fortran's order, names of parts, folders in a listing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from cluster.dataserver.readers.conformance import camera_frames
from cluster.dataserver.readers.registry import open_series
from cluster.dataserver.store import SeriesStore
from cluster.errors import Invalid
from tests.contract.readers import vendor_files

Array = np.ndarray[Any, Any]
FramesOf = Callable[..., Array]


def test_a_part_that_a_shard_lacks_is_a_missing_frame_and_not_a_black_one(
    frames_of: FramesOf, tmp_path: Path
) -> None:
    written = frames_of()
    shape = written.shape[1:]
    array = zarr.create_array(
        tmp_path / "s.zarr", shape=written.shape, chunks=(1, *shape), shards=(13, *shape), dtype="uint16"
    )
    kept = [n for n in range(13) if n not in {4, 9}]
    for n in kept:
        array[n] = written[n]

    reader = open_series(tmp_path / "s.zarr")
    frames, missing = reader.read(0, 13)
    reader.close()

    assert missing == (4, 9)
    np.testing.assert_array_equal(frames[kept], written[kept])


def test_a_codec_that_could_do_more_than_decode_is_refused(frames_of: FramesOf, tmp_path: Path) -> None:
    written = frames_of()
    array = zarr.create_array(tmp_path / "s.zarr", shape=written.shape, chunks=(1, 24, 36), dtype="uint16")
    array[:] = written
    said = tmp_path / "s.zarr" / "zarr.json"
    said.write_text(said.read_text().replace('"name": "zstd"', '"name": "numcodecs.pickle"'))

    with pytest.raises(Invalid, match=r"numcodecs\.pickle.*not read"):
        open_series(tmp_path / "s.zarr")


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_in_either_memory_order_is_the_same_series(
    frames_of: FramesOf, tmp_path: Path, order: Any
) -> None:
    written = frames_of()
    np.save(tmp_path / "s.npy", np.asarray(written, order=order))

    reader = open_series(tmp_path / "s.npy")
    frames, missing = reader.read(3, 9)
    reader.close()

    np.testing.assert_array_equal(frames, written[3:9])
    assert missing == ()


def test_an_array_of_objects_is_refused_without_being_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([[[{"a": 1}]]], dtype=object))

    with pytest.raises(Invalid, match=r"s\.npy"):
        open_series(tmp_path / "s.npy")


def test_folders_that_are_series_are_listed_as_series_and_served(frames_of: FramesOf, tmp_path: Path) -> None:
    written = frames_of()
    (tmp_path / "shots").mkdir()
    for n, frame in enumerate(written):
        tifffile.imwrite(tmp_path / "shots" / f"img_{n:04d}.tif", frame)
    array = zarr.create_array(tmp_path / "s.zarr", shape=written.shape, chunks=(1, 24, 36), dtype="uint16")
    array[:] = written
    (tmp_path / "day 1").mkdir()
    store = SeriesStore([tmp_path])

    listed = {entry.path: entry.kind for entry in store.listing("").entries}
    got = {name: store.frames(name, 2, 5).frames for name in ("shots", "s.zarr")}
    store.close()

    assert listed == {"shots": "series", "s.zarr": "series", "day 1": "folder"}
    for frames in got.values():
        np.testing.assert_array_equal(frames, written[2:5])


@pytest.mark.parametrize(("suffix", "package"), [("nd2", "nd2"), ("czi", "pylibCZIrw")])
def test_a_vendors_format_whose_package_is_not_installed_says_what_to_install(
    tmp_path: Path, suffix: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    (tmp_path / f"s.{suffix}").write_bytes(b"whatever lies in it" * 10)

    with pytest.raises(Invalid, match=r"pip install .*clusterofone\[formats\]"):
        open_series(tmp_path / f"s.{suffix}")


def test_an_nd2_of_a_channel_that_its_library_cannot_describe_opens_all_the_same(tmp_path: Path) -> None:
    written = camera_frames()
    described = vendor_files.nd2(tmp_path, written, pFluorescentProbe={"sName": "none"})
    with closing(open_series(described)) as reader:
        assert reader.shape.metadata["voxelsize.x"].value == 0.1
    with closing(open_series(vendor_files.nd2(tmp_path, written))) as reader:
        assert reader.shape.metadata == {}
        np.testing.assert_array_equal(reader.read(0, len(written))[0], written)
