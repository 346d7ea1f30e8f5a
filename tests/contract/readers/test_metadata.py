"""Units and origins: whatever a file says, it comes out in PYME's keys, µm, seconds and pixels from 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from cluster.dataserver.readers import ome
from cluster.dataserver.readers.micromanager import to_pyme
from cluster.dataserver.readers.raw import picasso_to_pyme
from cluster.dataserver.readers.registry import open_series
from cluster.errors import Invalid

STACK = np.arange(4 * 8 * 10, dtype=np.uint16).reshape(4, 8, 10)
GREY = {"photometric": "minisblack"}


def _metadata(path: Path) -> dict[str, Any]:
    reader = open_series(path)
    reader.close()
    return {key: value.value for key, value in reader.shape.metadata.items()}


@pytest.mark.parametrize(
    ("unit", "pixels_per_unit", "voxel_um"),
    [
        ("um", 10.0, 0.1),
        ("micron", 6.25, 0.16),
        ("\\u00B5m", 10.0, 0.1),
        ("nm", 0.00625, 0.16),
        ("mm", 10000.0, 0.1),
    ],
)
def test_imagej_pixel_size_is_in_micrometres(
    tmp_path: Path, unit: str, pixels_per_unit: float, voxel_um: float
) -> None:
    path = tmp_path / "a.tif"
    notes = {"axes": "TYX", "unit": unit, "finterval": 0.05}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(pixels_per_unit, pixels_per_unit), metadata=notes)

    found = _metadata(path)

    assert found == {
        "voxelsize.x": pytest.approx(voxel_um),
        "voxelsize.y": pytest.approx(voxel_um),
        "Camera.CycleTime": 0.05,
    }


def test_imagej_spacing_is_the_distance_of_planes(tmp_path: Path) -> None:
    notes = {"axes": "ZYX", "unit": "um", "spacing": 0.05}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(10, 10), metadata=notes)

    assert _metadata(tmp_path / "a.tif")["voxelsize.z"] == pytest.approx(0.05)


def test_imagej_pixels_without_a_unit_give_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(100, 100), metadata={"axes": "TYX"})

    assert _metadata(tmp_path / "a.tif") == {}


def test_a_stack_of_channels_alone_is_a_series_someone_opened_wrongly(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "CYX"})

    reader = open_series(tmp_path / "a.tif")
    reader.close()

    assert reader.shape.frames == 4


@pytest.mark.parametrize(
    ("unit", "pixels_per_unit", "voxel_um"),
    [("CENTIMETER", 62500, 0.16), ("INCH", 254000, 0.1), ("INCH", 72, None), ("NONE", 62500, None)],
)
def test_plain_resolution_tags_count_only_if_a_microscope_could_have_them(
    tmp_path: Path, unit: str, pixels_per_unit: float, voxel_um: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, resolution=(pixels_per_unit, pixels_per_unit), resolutionunit=unit, **GREY)

    assert _metadata(path).get("voxelsize.x") == (pytest.approx(voxel_um) if voxel_um else None)


@pytest.mark.parametrize(
    ("size", "unit", "voxel_um"),
    [
        ("0.1", None, 0.1),
        ("100", "nm", 0.1),
        ("1e-4", "mm", 0.1),
        ("1000", "Å", 0.1),
        ("1", "pixel", None),
        ("-1", None, None),
    ],
)
def test_ome_physical_size_is_converted(
    tmp_path: Path, size: str, unit: str | None, voxel_um: float | None
) -> None:
    given = f'PhysicalSizeX="{size}"' + (f' PhysicalSizeXUnit="{unit}"' if unit else "")

    notes = ome.read_notes(_xml(given), "a.ome.tif")

    assert notes.metadata.get("voxelsize.x") == (pytest.approx(voxel_um) if voxel_um else None)


def _xml(pixels: str = "", inside: str = "", after: str = "") -> str:
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" SizeX="10" SizeY="8" SizeC="1" SizeZ="1" SizeT="4" {pixels}>'
        f"{inside}</Pixels></Image>{after}</OME>"
    )


def test_ome_times_are_in_seconds() -> None:
    xml = _xml(
        'TimeIncrement="50" TimeIncrementUnit="ms"',
        '<Plane ExposureTime="20" ExposureTimeUnit="ms" TheT="0"/>',
    )

    assert ome.read_notes(xml, "a").metadata == {"Camera.CycleTime": 0.05, "Camera.IntegrationTime": 0.02}


def test_pyme_values_in_ome_annotations_keep_their_types() -> None:
    tree = (
        '<StructuredAnnotations><XMLAnnotation><Value><MetaData><Camera><ADOffset class="int" value="100"/>'
        '<Cooled class="bool" value="True"/><ROI class="pickle" value="KEkwCkk1OApJMQp0cDEKLg=="/></Camera>'
        '<voxelsize><x class="float" value="0.07"/></voxelsize></MetaData></Value></XMLAnnotation></StructuredAnnotations>'
    )

    found = ome.read_notes(_xml(after=tree), "a").metadata

    assert found == {
        "Camera.ADOffset": 100,
        "Camera.Cooled": True,
        "Camera.ROI": (0, 58, 1),
        "voxelsize.x": 0.07,
    }


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + _xml(), "document type"),
        (
            _xml(inside='<TiffData IFD="0"><UUID FileName="../../secret.tif">u</UUID></TiffData>'),
            "same folder",
        ),
        (_xml(inside='<TiffData IFD="0"><UUID FileName="C:\\a.tif">u</UUID></TiffData>'), "same folder"),
        ('<OME><BinaryOnly MetadataFile="first.ome.tif"/></OME>', "open first.ome.tif"),
        (_xml(after='<Image ID="Image:1"/>'), "2 images"),
        (_xml().replace('SizeT="4"', 'SizeT="0"'), "SizeT"),
        ("<OME>", "cannot be read"),
    ],
)
def test_ome_xml_that_leads_elsewhere_or_nowhere_is_refused(xml: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        ome.read_notes(xml, "a.ome.tif")


def test_a_renamed_ome_file_is_still_itself(tmp_path: Path) -> None:
    inside = '<TiffData IFD="0" PlaneCount="4"><UUID FileName="old name.ome.tif">urn:uuid:7</UUID></TiffData>'
    with tifffile.TiffWriter(tmp_path / "new.ome.tif") as writer:
        for number, frame in enumerate(STACK):
            text = _xml(inside=inside) if number == 0 else None
            writer.write(frame, contiguous=False, metadata=None, description=text)

    reader = open_series(tmp_path / "new.ome.tif")
    frames, missing = reader.read(0, 4)
    reader.close()

    np.testing.assert_array_equal(frames, STACK)
    assert missing == ()


def test_frames_of_an_ome_file_that_is_gone_are_missing(tmp_path: Path) -> None:
    inside = '<TiffData IFD="0" PlaneCount="2"/><TiffData IFD="0" FirstT="2" PlaneCount="2"><UUID FileName="gone.ome.tif">urn:uuid:7</UUID></TiffData>'
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        for number, frame in enumerate(STACK[:2]):
            text = _xml(inside=inside) if number == 0 else None
            writer.write(frame, contiguous=False, metadata=None, description=text)

    reader = open_series(tmp_path / "a.ome.tif")
    frames, missing = reader.read(0, 4)
    reader.close()

    assert reader.shape.missing == ((2, 4),)
    assert missing == (2, 3)
    np.testing.assert_array_equal(frames[:2], STACK[:2])


def test_micromanager_notes_come_out_in_pyme_keys() -> None:
    notes = {
        "Camera": "HamamatsuHam_DCAM", "Exposure-ms": 20.0, "PixelSizeUm": 0.13, "ROI": "438-562-30-40",
        "HamamatsuHam_DCAM-CONVERSION FACTOR COEFF": "0.4800", "HamamatsuHam_DCAM-CONVERSION FACTOR OFFSET": "400.0",
        "HamamatsuHam_DCAM-CameraID": "S/N: 100276",
    }  # fmt: skip

    assert to_pyme({"Interval_ms": 50.0}, notes) == {
        "voxelsize.x": 0.13,
        "voxelsize.y": 0.13,
        "Camera.IntegrationTime": 0.02,
        "Camera.CycleTime": 0.05,
        "Camera.Name": "HamamatsuHam_DCAM",
        "Camera.ElectronsPerCount": 0.48,
        "Camera.ADOffset": 400.0,
        "Camera.SerialNumber": "S/N: 100276",
        "Camera.ROIOriginX": 438,
        "Camera.ROIOriginY": 562,
        "Camera.ROIWidth": 30,
        "Camera.ROIHeight": 40,
    }


def test_what_micromanager_does_not_know_is_left_out() -> None:
    assert to_pyme({"Interval_ms": 0.0}, {"PixelSizeUm": 0.0, "Exposure-ms": "nonsense", "ROI": "all"}) == {}


def test_micromanager_notes_in_a_tiff_are_found(tmp_path: Path) -> None:
    note = json.dumps({"PixelSizeUm": 0.16, "Exposure-ms": 10.0}).encode()
    tifffile.imwrite(
        tmp_path / "a.tif", STACK, extratags=[(51123, 2, len(note) + 1, note, True)], metadata=None, **GREY
    )

    assert _metadata(tmp_path / "a.tif") == {
        "voxelsize.x": 0.16,
        "voxelsize.y": 0.16,
        "Camera.IntegrationTime": 0.01,
    }


def test_a_huge_micromanager_file_is_read_at_its_head_only(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(STACK.astype(">u2").tobytes())
    head = '{"Summary": {"Frames": 4, "PixelType": "GRAY16", "Height": 8, "Width": 10},\n"FrameKey-0-0-0": {"Exposure-ms": 5},'
    with (tmp_path / "metadata.txt").open("wb") as file:
        file.write(head.encode())
        file.truncate(10 << 30)

    found = _metadata(tmp_path / "a.raw")

    assert found == {"Camera.IntegrationTime": 0.005, "ByteOrder": ">"}


def test_picasso_keys_come_out_in_pyme_keys() -> None:
    said = {
        "Pixelsize": 130,
        "Baseline": 100,
        "Sensitivity": 0.47,
        "Gain": 1,
        "Camera": "Zyla",
        "Camera.Integration Time": 300,
    }

    assert picasso_to_pyme(said) == {
        "voxelsize.x": 0.13,
        "voxelsize.y": 0.13,
        "Camera.IntegrationTime": 0.3,
        "Camera.Name": "Zyla",
        "Camera.ADOffset": 100.0,
        "Camera.ElectronsPerCount": 0.47,
        "Camera.TrueEMGain": 1.0,
    }


def test_dax_region_counts_from_zero(tmp_path: Path) -> None:
    (tmp_path / "a.dax").write_bytes(STACK.astype(">u2").tobytes())
    (tmp_path / "a.inf").write_text(
        "data type = 16 bit integers (binary, big endian)\nframe dimensions = 10 x 8\nnumber of frames = 4\n"
        "x_start = 129\nx_end = 138\ny_start = 1\ny_end = 8\n",
        encoding="utf-8",
    )

    assert _metadata(tmp_path / "a.dax") == {
        "Camera.ROIWidth": 10,
        "Camera.ROIHeight": 8,
        "Camera.ROIOriginX": 128,
        "Camera.ROIOriginY": 0,
    }


def test_pyme_events_and_metadata_come_with_the_frames(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ImageData"] = STACK.transpose(0, 2, 1)
        file.create_group("MetaData/Camera").attrs["Gain"] = np.nan
        file["MetaData"].attrs["StartTime"] = 1.7e9
        table = np.zeros(1, [("EventDescr", "S256"), ("EventName", "S32"), ("Time", "<f8")])
        table[0] = (b"12, 3.5", b"ProtocolFocus", 1700000001.5)
        file["Events"] = table

    reader = open_series(tmp_path / "a.h5")
    events = reader.events()
    reader.close()

    assert [(event.name, event.description, event.time) for event in events] == [
        ("ProtocolFocus", "12, 3.5", 1700000001.5)
    ]
    assert {key: (v.value, v.source) for key, v in reader.shape.metadata.items()} == {
        "Camera.Gain": (None, "file"),
        "StartTime": (1.7e9, "file"),
    }
