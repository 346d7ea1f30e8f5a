"""An HDF5 file can point at any other by links, storage and virtual datasets: none is followed, on any way into the file.

What is pointed at is a pipe that nobody writes to (where there are such): whoever opened it would wait for ever.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from cluster.dataserver.parsing.limits import Limits
from cluster.dataserver.parsing.parsers import Parsers
from cluster.dataserver.store import SeriesStore
from cluster.errors import Invalid, NotFound
from cluster.results.h5r import Reader

STACK = np.arange(6 * 8 * 10, dtype=np.uint16).reshape(6, 8, 10)
EVENTS = np.dtype([("EventDescr", "S256"), ("EventName", "S32"), ("Time", "<f8")])
INDEX = np.dtype([("FrameNum", "i4"), ("Position", "i4")])
Plant = Callable[[h5py.Group, str, np.dtype, str], None]


@pytest.fixture(scope="module")
def store_of() -> Iterator[Callable[[Path], SeriesStore]]:
    parsers = Parsers(replace(Limits(), base_s=10.0))
    yield lambda root: SeriesStore([root], parsers=parsers)
    parsers.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """What must not be opened: outside the root, and beside the file by its bare name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for place in (outside / "other.h5", tmp_path / "root" / "other.h5"):
        place.parent.mkdir(exist_ok=True)
        if sys.platform == "win32":
            with h5py.File(place, "w") as file:
                file["frames"] = STACK
        else:
            os.mkfifo(place)
    return str(outside / "other.h5")


def external_link(group: h5py.Group, name: str, _kind: np.dtype, other: str) -> None:
    group[name] = h5py.ExternalLink(other, "/frames")


def soft_link(group: h5py.Group, name: str, _kind: np.dtype, _other: str) -> None:
    group.file.require_dataset("/aside", STACK.shape, "u2")
    group[name] = h5py.SoftLink("/aside")


def soft_link_through_an_external_one(group: h5py.Group, name: str, _kind: np.dtype, other: str) -> None:
    group.file["/way"] = h5py.ExternalLink(other, "/")
    group[name] = h5py.SoftLink("/way/frames")


def external_storage(group: h5py.Group, name: str, kind: np.dtype, other: str) -> None:
    shape = STACK.shape if kind == np.uint16 else (6,)
    group.create_dataset(name, shape, kind, external=[(other, 0, h5py.h5f.UNLIMITED)])


def virtual(group: h5py.Group, name: str, kind: np.dtype, other: str) -> None:
    shape = STACK.shape if kind == np.uint16 else (6,)
    layout = h5py.VirtualLayout(shape, kind)
    layout[:] = h5py.VirtualSource(other, "frames", shape=shape)
    group.create_virtual_dataset(name, layout)


LINKS: list[Plant] = [external_link, soft_link, soft_link_through_an_external_one]
STORED: list[Plant] = [external_storage, virtual]
KINDS = {"ImageData": np.dtype("u2"), "Events": EVENTS, "PZFImageIndex": INDEX, "images": np.dtype("u2")}
WAYS = [
    *(("series.h5", "ImageData", plant) for plant in LINKS + STORED),
    *(("series.h5", "Events", plant) for plant in LINKS + STORED),
    *(("series.h5", "PZFImageData", plant) for plant in LINKS),
    *(("series.h5", "PZFImageIndex", plant) for plant in LINKS + STORED),
    *(("series.h5", "MetaData", plant) for plant in LINKS),
    *(("series.h5", "MetaData/Camera", plant) for plant in LINKS),
    *(("series.h5!entry!images", "entry/images", plant) for plant in LINKS + STORED),
    *(("series.h5!entry!images", "entry", plant) for plant in LINKS),
    *(("series.h5", "entry/images", plant) for plant in (external_link, *STORED)),
]


@pytest.mark.parametrize(
    ("asked", "key", "plant"), WAYS, ids=[f"{asked} {key} {plant.__name__}" for asked, key, plant in WAYS]
)
def test_no_way_into_a_file_leads_out_of_it(
    tmp_path: Path,
    elsewhere: str,
    store_of: Callable[[Path], SeriesStore],
    asked: str,
    key: str,
    plant: Plant,
) -> None:
    for other in (elsewhere, "other.h5"):
        path = tmp_path / "root" / "series.h5"
        with h5py.File(path, "w") as file:
            _rest(file, key)
            above, _, name = key.rpartition("/")
            plant(file.require_group(above or "/"), name, KINDS.get(name, np.dtype("u2")), other)

        with pytest.raises(Invalid) as said:
            store_of(tmp_path / "root").facts(asked)

        assert any(word in said.value.detail for word in ("links", "other files", "no other array")), (
            said.value
        )


def _rest(file: h5py.File, key: str) -> None:
    """What makes the file a series but for the key."""
    if key in {"Events", "MetaData", "MetaData/Camera"}:
        file["ImageData"] = STACK
    if key == "PZFImageIndex":
        rows = file.create_dataset("PZFImageData", (1,), h5py.vlen_dtype(np.uint8))
        rows[0] = np.zeros(80, np.uint8)


@pytest.mark.parametrize(
    "part", ["", "entry!", "!images", "..", "entry!..!images", "no", "entry!images!deeper"]
)
def test_a_part_that_is_no_array_is_refused(
    tmp_path: Path, store_of: Callable[[Path], SeriesStore], part: str
) -> None:
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["entry/images"] = STACK
        file["second"] = STACK

    with pytest.raises((Invalid, NotFound)):
        store_of(tmp_path).facts(f"series.h5!{part}")


@pytest.mark.parametrize("plant", LINKS + STORED)
def test_results_stay_inside_too(tmp_path: Path, elsewhere: str, plant: Plant) -> None:
    path = tmp_path / "results.h5r"
    with h5py.File(path, "w") as file:
        plant(file, "FitResults", np.dtype([("x", "<f4")]), elsewhere)

    with pytest.raises(Invalid, match=r"link|another file"):
        Reader(path)
