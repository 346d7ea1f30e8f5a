"""PSFs and width curves written, read again, and read from files of others. Files of a few kB: what is tested is how they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cluster.calibration_files import (
    read_curves,
    read_psf,
    write_curves,
    write_psf,
)
from cluster.dataserver.sidecars import read_sidecars
from cluster.errors import Conflict, Invalid, NotFound
from cluster.job_calibrations import curves_of, sidecar_of
from fitting.calibrated import MeasuredPsf, SigmaCurves

VOLUME = np.random.default_rng(0).random((9, 8, 8)).astype(np.float32)
PYME_OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2015-01"><Image ID="Image:0">
<Pixels DimensionOrder="XYCZT" ID="Pixels:0" PhysicalSizeX="0.0740" PhysicalSizeY="0.0720" SizeC="1" SizeT="9" SizeX="8" SizeY="8"
 SizeZ="1" Type="float"><TiffData/></Pixels></Image><StructuredAnnotations><XMLAnnotation ID="PYME"><Value><MetaData><voxelsize>
<y class="float" value="0.072"/><x class="float" value="0.074"/><z class="float" value="0.05"/></voxelsize></MetaData></Value>
</XMLAnnotation></StructuredAnnotations></OME>"""


def _pyme(path: Path, description: str = PYME_OME) -> Path:
    tifffile.imwrite(path, VOLUME, photometric="minisblack", description=description, metadata=None)
    return path


def test_a_psf_comes_back_as_it_was_written(tmp_path: Path) -> None:
    psf = MeasuredPsf(np.tile(VOLUME, 2), 97.3, 25.0, 3.75, channels=2)

    write_psf(tmp_path / "psf.tif", psf, {"made": "here"})
    back = read_psf(tmp_path / "psf.tif")

    np.testing.assert_array_equal(back.volume, psf.volume)
    assert (back.pixel_nm, back.step_nm, back.focus_plane, back.channels) == (97.3, 25.0, 3.75, 2)
    assert json.loads(sidecar_of(tmp_path / "psf.tif").read_text())["provenance"] == {"made": "here"}


def test_a_psf_without_its_sidecar_still_knows_its_pitches(tmp_path: Path) -> None:
    write_psf(tmp_path / "psf.tif", MeasuredPsf(VOLUME, 97.3, 25.0, 3.75), {})
    sidecar_of(tmp_path / "psf.tif").unlink()

    back = read_psf(tmp_path / "psf.tif")

    assert (back.pixel_nm, back.step_nm, back.focus_plane) == (pytest.approx(97.3, rel=1e-4), 25.0, 4.0)


def test_what_lies_beside_a_psf_is_metadata_that_a_data_server_serves(tmp_path: Path) -> None:
    provenance = {"input": [{"file": "beads.tif"}], "options": {"half_size": 15, "channel0": None}}
    write_psf(tmp_path / "psf.tif", MeasuredPsf(VOLUME, 97.3, 25.0, 3.75), provenance)

    said = read_sidecars(tmp_path / "psf.tif")

    facts = {name: said[name].value for name in ("pixel_nm", "step_nm", "focus_plane", "channels")}
    assert facts == {"pixel_nm": 97.3, "step_nm": 25.0, "focus_plane": 3.75, "channels": 1}


def test_what_exists_is_not_replaced_unasked(tmp_path: Path) -> None:
    psf = MeasuredPsf(VOLUME, 100.0, 25.0, 4.0)
    write_psf(tmp_path / "psf.tif", psf, {})

    with pytest.raises(Conflict):
        write_psf(tmp_path / "psf.tif", psf, {})
    write_psf(tmp_path / "psf.tif", psf, {}, replace=True)


def test_pymes_psf_is_read_with_its_voxel_size(tmp_path: Path) -> None:
    back = read_psf(_pyme(tmp_path / "psf.tif"))

    np.testing.assert_array_equal(back.volume, VOLUME)
    assert back.pixel_nm == pytest.approx(1000 * np.sqrt(0.074 * 0.072))
    assert (back.step_nm, back.focus_plane, back.channels) == (50.0, 4.0, 1)


def test_a_stack_twice_as_wide_as_high_is_two_channels_as_pyme_lays_them_out(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "two.tif", np.tile(VOLUME, 2), photometric="minisblack")

    assert read_psf(tmp_path / "two.tif", pixel_nm=100, step_nm=50).channels == 2


def test_a_sidecar_may_say_voxel_sizes_as_pyme_does(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "psf.tif", VOLUME, photometric="minisblack")
    sidecar_of(tmp_path / "psf.tif").write_text('{"voxelsize.x": 0.1, "voxelsize.z": 0.05, "focus_plane": 2}')

    back = read_psf(tmp_path / "psf.tif")

    assert (back.pixel_nm, back.step_nm, back.focus_plane) == (100.0, 50.0, 2.0)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.psf", lambda p: p.write_bytes(b"\x80\x04"), "Python pickle.*save it as .tif"),
        ("a.txt", lambda p: p.write_text("psf"), "a.txt"),
        ("a.tif", lambda p: p.write_text("psf"), "not a TIFF file that can be read"),
        ("a.tif", lambda p: tifffile.imwrite(p, VOLUME[0]), "holds 1 planes"),
        ("a.tif", lambda p: tifffile.imwrite(p, VOLUME, photometric="minisblack"), "does not say its pixel_nm.*a.json"),
        ("a.tif", lambda p: tifffile.imwrite(p, VOLUME, imagej=True, resolution=(10, 10), metadata={"unit": "um", "axes": "ZYX"}), "does not say its step_nm.*a.json"),
        ("a.tif", lambda p: _pyme(p, PYME_OME.replace("<OME", "<!DOCTYPE x><OME")), "document type"),
    ],
)  # fmt: skip
def test_what_is_no_psf_is_refused_by_name(tmp_path: Path, name: str, make: Any, said: str) -> None:
    make(tmp_path / name)

    with pytest.raises(Invalid, match=said):
        read_psf(tmp_path / name)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no file .*a\.tif"):
        read_psf(tmp_path / "a.tif")


def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full_like(VOLUME, np.nan), photometric="minisblack")

    with pytest.raises(Invalid, match=r"a\.tif holds NaN"):
        read_psf(tmp_path / "a.tif", pixel_nm=100, step_nm=50)


def test_width_curves_come_back_as_they_were_written(tmp_path: Path) -> None:
    z = np.linspace(-500, 500, 21)
    curves = SigmaCurves.from_defocus(z, (140, -200, 400, 0, 0), (140, 200, 400, 0, 0))
    path = curves_of(tmp_path / "psf.tif")

    write_curves(path, curves, {"pixel_nm": 100.0})
    back = read_curves(path)

    assert path.name == "psf.sigma.json"
    np.testing.assert_array_equal(back.sigma_y_nm, curves.sigma_y_nm)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "neither a shift field nor width curves"),
        ('{"dx_nm": [[1]], "dy_nm": [[1]], "scale_nm": 1, "centre_nm": [0, 0]}', "needs width curves"),
        ("{", "not JSON"),
        ('{"z_nm": [1, 2]}', "not a table of z_nm"),
    ],
)
def test_what_is_no_table_of_widths_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)

    with pytest.raises(Invalid, match=f"a.json.*{said}"):
        read_curves(tmp_path / "a.json")
