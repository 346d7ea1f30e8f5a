"""Results files: what PyTables and PYME see, what we read back, and what never happens to a disk."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tables

from cluster.errors import Conflict, Invalid, NotFound, OutOfSpace
from cluster.results.h5r import EVENTS_DTYPE, Reader, Writer, events_table, read
from cluster.results.ledger import Ledger
from cluster.results.metadata_tree import merged_metadata
from cluster.results.provenance import Provenance
from fitting.fits import resolve
from fitting.localisations import LAT_GAUSS_DTYPE, FrameStatus

MakeRows = Callable[..., np.ndarray]
MakeProvenance = Callable[..., Provenance]

EVERY_TYPE: dict[str, Any] = {
    "Some.Int": 3,
    "Some.Negative": -7,
    "Some.Huge": 10**30,
    "Some.Float": 1.5,
    "Some.NaN": math.nan,
    "Some.Yes": True,
    "Some.No": False,
    "Some.Text": "localisation at 0.1 µm",
    "Some.Dotted": "ends with a stop.",
    "Some.Empty": "",
    "Some.List": [1, 2.5, "µ", None, True, [1, 2]],
    "Some.Tuple": (0, 20),
    "Some.Dict": {"a": 1, "b": [1, 2]},
    "Some.None": None,
    "Some.Deep.Down.Below": 1,
    "Top": 1,
    "Sample.Labelling": [["alpha-tubulin", "ATTO655"]],
}


@pytest.fixture
def write(tmp_path: Path, make_rows: MakeRows, make_provenance: MakeProvenance) -> Callable[..., Path]:
    def write(
        name: str = "series.h5r",
        rows: np.ndarray | None = None,
        metadata: dict[str, Any] | None = None,
        blocks: int = 1,
        **options: Any,
    ) -> Path:
        rows = make_rows() if rows is None else rows
        with Writer(tmp_path / name, rows.dtype, metadata or {}, **options) as writer:
            for block in np.array_split(rows, blocks):
                writer.append(block)
            return writer.finish(make_provenance())

    return write


def test_pytables_finds_tables_with_pymes_row_layout(write: Callable[..., Path], make_rows: MakeRows) -> None:
    events = events_table([("StartAq", "0", 1.0), ("ProtocolFocus", "3, 1.5", 2.0)])
    path = write(events=events)

    with tables.open_file(str(path)) as file:
        assert type(file.root.FitResults) is tables.Table
        assert type(file.root.Events) is tables.Table
        assert file.root.FitResults.dtype == LAT_GAUSS_DTYPE
        assert file.root.FitResults.dtype.itemsize == 108
        assert file.root.FitResults.filters.complib == "zlib"
        assert file.root.FitResults[:].tobytes() == make_rows().tobytes()
        assert file.root.Events[:].tolist() == [(b"0", b"StartAq", 1.0), (b"3, 1.5", b"ProtocolFocus", 2.0)]
        assert (
            file.root.FitResults.col("fitResults")["x0"].tolist() == make_rows()["fitResults"]["x0"].tolist()
        )


def test_pytables_can_append_rows(write: Callable[..., Path], make_rows: MakeRows) -> None:
    path = write()

    with tables.open_file(str(path), "a") as file:
        file.root.FitResults.append(make_rows(7))

    assert len(read(path).rows) == 107


def test_no_other_dataset_at_the_root_can_grow(write: Callable[..., Path]) -> None:
    with h5py.File(write()) as file:
        growing = [
            name for name, node in file.items() if isinstance(node, h5py.Dataset) and None in node.maxshape
        ]

    assert growing == ["FitResults"]


@pytest.mark.parametrize("key", EVERY_TYPE)
def test_pytables_reads_every_type_of_metadata_back(write: Callable[..., Path], key: str) -> None:
    path = write(metadata=EVERY_TYPE)
    *groups, name = key.split(".")

    with tables.open_file(str(path)) as file:
        value = file.get_node("/".join(["/MetaData", *groups]))._v_attrs[name]

    expected = EVERY_TYPE[key]
    kinds = {bool: np.bool_, str: np.str_, float: np.float64, int: np.int64 if key != "Some.Huge" else int}
    assert type(value) is kinds.get(type(expected), type(expected))
    assert (
        np.array_equal(value, expected, equal_nan=True) if isinstance(expected, float) else value == expected
    )


def test_no_metadata_attribute_is_an_array(write: Callable[..., Path]) -> None:
    path = write(metadata=EVERY_TYPE | {"An.Array": np.arange(3), "An.Image": np.zeros((2, 2))})

    with h5py.File(path) as file:
        shapes = []
        file["MetaData"].visititems(
            lambda _, node: shapes.extend(node.attrs.get_id(a).shape for a in node.attrs)
        )
    assert set(shapes) == {()}


def test_we_read_our_own_metadata_back(write: Callable[..., Path]) -> None:
    back = read(write(metadata=EVERY_TYPE)).metadata

    assert math.isnan(back.pop("Some.NaN"))
    assert back == {key: value for key, value in EVERY_TYPE.items() if key != "Some.NaN"}


@pytest.mark.parametrize(
    ("given", "read_back"),
    [
        (np.float32(0.5), 0.5),
        (np.int16(3), 3),
        (np.bool_(True), True),
        (np.arange(3), [0, 1, 2]),
        ({"a": np.float64(1)}, {"a": 1.0}),
        (b"bytes", "bytes"),
        (Path("a"), "a"),
        ("nul\0nul", "nulnul"),
        ("x" * 200_000, "x" * 200_000),
        (list(range(50_000)), json.dumps(list(range(50_000)))),
    ],
)
def test_odd_values_become_plain_ones(write: Callable[..., Path], given: object, read_back: object) -> None:
    assert read(write(metadata={"A.b": given})).metadata == {"A.b": read_back}


@pytest.mark.parametrize("key", ["A/b.c", "A..b", ".a", "a.", "A.TITLE", "A b.ü"])
def test_odd_keys_do_not_break_a_file(write: Callable[..., Path], key: str) -> None:
    path = write(metadata={key: 1})

    assert list(read(path).metadata.values()) == [1]
    with tables.open_file(str(path)) as file:
        assert len(list(file.walk_nodes("/MetaData"))) >= 1


def test_a_group_and_a_value_may_share_a_name(write: Callable[..., Path]) -> None:
    metadata = {"Camera": "sCMOS", "Camera.Name": "x"}

    assert read(write(metadata=metadata)).metadata == metadata


def test_tables_are_the_same_bytes_however_the_rows_arrived(
    write: Callable[..., Path], make_rows: MakeRows, tmp_path: Path
) -> None:
    rows = make_rows(5000)
    once = write("once.h5r", rows=rows)
    often = write("often.h5r", rows=rows, blocks=173)

    assert read(once).rows.tobytes() == read(often).rows.tobytes() == rows.tobytes()
    with h5py.File(once) as a, h5py.File(often) as b:
        chunks = [file["FitResults"].id.read_direct_chunk((0,)) for file in (a, b)]
    assert chunks[0] == chunks[1]


def test_a_table_without_rows_is_a_result_too(write: Callable[..., Path], make_rows: MakeRows) -> None:
    path = write(rows=make_rows(0))

    with tables.open_file(str(path)) as file:
        assert file.root.FitResults.nrows == 0
        assert file.root.FitResults.dtype == LAT_GAUSS_DTYPE
    assert read(path).rows.dtype == LAT_GAUSS_DTYPE


def test_fiducials_have_their_own_table(
    tmp_path: Path, make_rows: MakeRows, make_provenance: MakeProvenance
) -> None:
    with Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}) as writer:
        writer.append(make_rows(10))
        writer.append_fiducials(make_rows(3, seed=1))
        path = writer.finish(make_provenance())

    fiducials = read(path).fiducials
    assert fiducials is not None
    assert fiducials.tobytes() == make_rows(3, seed=1).tobytes()
    with tables.open_file(str(path)) as file:
        assert type(file.root.DriftResults) is tables.Table


def test_provenance_comes_back_whole(write: Callable[..., Path], make_provenance: MakeProvenance) -> None:
    back = read(write()).provenance

    given = make_provenance()
    assert back is not None
    assert (back.settings, back.metadata, back.versions) == (given.settings, given.metadata, given.versions)
    assert (back.input, back.job) == (given.input, given.job)
    assert back.ledger.counts == given.ledger.counts
    assert back.ledger.localisations.tolist() == [5] * 20
    assert resolve(back.settings, {}) == back.settings


def test_failed_frames_come_back_with_their_reasons(
    tmp_path: Path, make_rows: MakeRows, make_provenance: MakeProvenance
) -> None:
    ledger = Ledger.empty(9)
    ledger.record(0, np.full(4, FrameStatus.LOCALISED, np.uint8), make_rows(20))
    ledger.fail(4, 7, "not in the file")
    ledger.fail(7, 9, "worker died three times")
    with Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}) as writer:
        writer.append(make_rows(20))
        path = writer.finish(make_provenance(ledger))

    provenance = read(path).provenance

    assert provenance is not None
    assert list(provenance.ledger.failed_ranges()) == [
        (4, 7, "not in the file"),
        (7, 9, "worker died three times"),
    ]
    assert provenance.ledger.localisations.tolist() == [5, 5, 5, 5, 0, 0, 0, 0, 0]
    with tables.open_file(str(path)) as file:
        assert {node._v_name for node in file.walk_nodes("/Provenance", classname="Array")} >= {
            "settings",
            "input",
        }
        assert json.loads(file.root.Provenance.job.read().item()) == {"id": "j1", "name": "µ"}


def test_maps_given_as_arrays_are_told_by_their_digest(
    tmp_path: Path, make_provenance: MakeProvenance
) -> None:
    settings = resolve({"dark_map": np.ones((4, 5), np.float32)}, {})
    base = make_provenance()
    provenance = Provenance(settings, base.metadata, base.versions, base.input, base.job, base.ledger)
    with Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}) as writer:
        path = writer.finish(provenance)

    back = read(path).provenance

    assert back is not None
    assert back.settings["dark_map"]["shape"] == [4, 5]
    assert len(back.settings["dark_map"]["sha256"]) == 64


def test_pyme_gets_the_settings_by_its_own_keys(metadata: dict[str, Any]) -> None:
    merged = merged_metadata(
        metadata, resolve({"threshold": 2, "estimator": "wls"}, metadata), shape=(48, 64)
    )

    assert merged["Analysis.FitModule"] == "LatGaussFitFR"
    assert merged["Analysis.DetectionThreshold"] == 2.0
    assert merged["Analysis.BGRange"] == [-30, 0]
    assert merged["Analysis.PCTBackground"] == 0.25
    assert (merged["Camera.TrueEMGain"], merged["Camera.NoiseFactor"]) == (1.0, 1.0)
    assert merged["voxelsize.x"] == 0.1
    assert resolve({"estimator": "wls"}, merged) == resolve({"threshold": 2, "estimator": "wls"}, metadata)


def test_an_em_camera_without_a_noise_factor_gets_that_of_its_register(metadata: dict[str, Any]) -> None:
    merged = merged_metadata(metadata | {"Camera.TrueEMGain": 40.0}, resolve({}, metadata))

    assert merged["Camera.NoiseFactor"] == pytest.approx(math.sqrt(2))


def test_events_that_are_too_long_are_cut_at_a_character() -> None:
    rows = events_table([("µ" * 40, "é" * 300, 1.5)])

    assert rows.dtype == EVENTS_DTYPE
    assert rows["EventName"][0].decode("utf-8") == "µ" * 16
    assert rows["EventDescr"][0].decode("utf-8") == "é" * 128


def test_an_existing_file_stands(write: Callable[..., Path]) -> None:
    first = write()

    with pytest.raises(Conflict):
        write()
    numbered = write(if_exists="number")
    again = write(if_exists="replace", metadata={"a": 1})

    assert [first.name, numbered.name, again.name] == ["series.h5r", "series_1.h5r", "series.h5r"]
    assert read(first).metadata == {"a": 1}
    assert sorted(path.name for path in first.parent.iterdir()) == ["series.h5r", "series_1.h5r"]


def test_a_writer_that_is_abandoned_leaves_nothing(tmp_path: Path, make_rows: MakeRows) -> None:
    def begin_and_stop() -> None:
        with Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}) as writer:
            writer.append(make_rows())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_and_stop()

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, make_rows: MakeRows) -> None:
    room = iter([1 << 30, 1 << 30, 1 << 30, 1000])
    with Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}, free=lambda _: next(room)) as writer:
        writer.append(make_rows())
        with pytest.raises(OutOfSpace, match=r"the disk is full: .*s\.h5r"):
            writer.append(make_rows())

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutOfSpace):
        Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}, free=lambda _: 0)

    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_fit_are_refused(tmp_path: Path, make_rows: MakeRows) -> None:
    with (
        Writer(tmp_path / "s.h5r", LAT_GAUSS_DTYPE, {}) as writer,
        pytest.raises(Invalid, match="do not belong"),
    ):
        writer.append(np.zeros(3, [("tIndex", "<i4")]))


def test_blocks_of_a_file_are_the_file(write: Callable[..., Path], make_rows: MakeRows) -> None:
    with Reader(write(rows=make_rows(1000))) as reader:
        blocks = list(reader.blocks(rows=300))

    assert [len(block) for block in blocks] == [300, 300, 300, 100]
    assert np.concatenate(blocks).tobytes() == make_rows(1000).tobytes()


def test_what_is_not_a_results_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.h5r").write_text("no", encoding="utf-8")
    with h5py.File(tmp_path / "empty.h5r", "w"):
        pass
    with h5py.File(tmp_path / "image.h5r", "w") as file:
        file["FitResults"] = np.zeros((3, 3))

    with pytest.raises(NotFound, match=r"none\.h5r: no such file"):
        read(tmp_path / "none.h5r")
    with pytest.raises(Invalid, match=r"text\.h5r is not an HDF5 file"):
        read(tmp_path / "text.h5r")
    with pytest.raises(Invalid, match=r"empty\.h5r has no FitResults table"):
        read(tmp_path / "empty.h5r")
    with pytest.raises(Invalid, match="is not a table"):
        read(tmp_path / "image.h5r")


@pytest.mark.parametrize("name", ["FitResults", "Events", "MetaData", "Provenance"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(write: Callable[..., Path], tmp_path: Path, name: str, kind: str) -> None:
    path = write(events=events_table([("a", "b", 1.0)]))
    with h5py.File(path, "a") as file:
        file.move(name, "elsewhere")
        file[name] = (
            h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink(str(path), "/elsewhere")
        )

    with pytest.raises(Invalid, match=f"/{name} is a link to elsewhere"):
        read(path)


def test_rows_kept_in_another_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(1080))
    with h5py.File(tmp_path / "s.h5r", "w") as file:
        file.create_dataset(
            "FitResults", (10,), LAT_GAUSS_DTYPE, external=[(str(tmp_path / "secret"), 0, 1080)]
        )

    with pytest.raises(Invalid, match="keeps its rows in another file"):
        read(tmp_path / "s.h5r")


def test_a_file_by_pytables_with_python_2_pickles_is_read(tmp_path: Path, make_rows: MakeRows) -> None:
    with tables.open_file(str(tmp_path / "old.h5r"), "w") as file:
        file.create_table("/", "FitResults", make_rows(10), filters=tables.Filters(5, "zlib", shuffle=True))
        camera = file.create_group("/MetaData", "Camera", createparents=True)
        camera._v_attrs["ReadNoise"] = 1.33
        camera._v_attrs["Cooled"] = True
        camera._v_attrs["ROI"] = [1, 2]
    with h5py.File(tmp_path / "old.h5r", "a") as raw:
        raw["MetaData/Camera"].attrs["ADOffset"] = np.bytes_(b"L100L\n.")
        raw["MetaData/Camera"].attrs["Range"] = np.bytes_(b"(L770L\nL1076L\ntp1\n.")

    results = read(tmp_path / "old.h5r")

    assert results.rows.tobytes() == make_rows(10).tobytes()
    assert results.provenance is None
    assert results.metadata == {
        "Camera.ReadNoise": 1.33,
        "Camera.Cooled": True,
        "Camera.ROI": [1, 2],
        "Camera.ADOffset": 100,
        "Camera.Range": (770, 1076),
    }


def test_a_file_cut_short_is_an_error_and_not_a_crash(
    write: Callable[..., Path], make_rows: MakeRows
) -> None:
    path = write(rows=make_rows(5000))
    whole = path.read_bytes()

    for length in (100, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(Invalid):
            read(path)
