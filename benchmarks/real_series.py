"""The public data sets that `real_data.py` goes through: where each lies, what its file does not say, and what it is held against."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile

Table = dict[str, Any]  # columns frame (from 0), x_nm, y_nm; the centre of the first pixel is 0


@dataclass(frozen=True)
class Positions:
    """A table of molecules: the simulation's own (`truth`), or another program's of the same series."""

    read: Callable[[Path], Table]
    by: str = "truth"


@dataclass(frozen=True)
class Series:
    """A series, what its file does not say, and what is known of it.

    `molecules` is how many another program found in `molecules_frames` frames; `same_as` another series with the same pixels.
    """

    path: str
    metadata: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    known: Positions | None = None
    molecules: int | None = None
    maps: str | None = None
    same_as: str | None = None


def camera(
    pixel_um: float, offset_adu: float, electrons_per_adu: float, read_noise_e: float
) -> dict[str, float]:
    """Return what a job must know of a camera, by PYME's keys."""
    return {
        "voxelsize.x": pixel_um,
        "voxelsize.y": pixel_um,
        "Camera.ADOffset": offset_adu,
        "Camera.ElectronsPerCount": electrons_per_adu,
        "Camera.ReadNoise": read_noise_e,
    }


def of_csv(
    path: str,
    columns: tuple[str, str, str],
    *,
    first_frame: int = 1,
    scale_nm: float = 1.0,
    shift_nm: float = 0.0,
    by: str = "truth",
) -> Positions:
    """Positions from a table with a header; `columns` are those of frame, x and y."""

    def read(data: Path) -> Table:
        with (data / path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        frame, x, y = (np.array([float(row[column]) for row in rows]) for column in columns)
        return _table(frame - first_frame, x * scale_nm + shift_nm, y * scale_nm + shift_nm)

    return Positions(read, by)


def of_picasso(path: str, pixel_nm: float) -> Positions:
    """Positions that Picasso found."""

    def read(data: Path) -> Table:
        with h5py.File(data / path) as file:
            locs = file["locs"][:]
        return _table(locs["frame"], locs["x"] * pixel_nm, locs["y"] * pixel_nm)

    return Positions(read, "Picasso")


def of_rapidstorm(path: str, frames: int) -> Positions:
    """Positions that rapidSTORM found in the first frames."""

    def read(data: Path) -> Table:
        x, y, frame = np.loadtxt(data / path, usecols=(0, 1, 2)).T
        kept = frame < frames
        return _table(frame[kept], x[kept], y[kept])

    return Positions(read, "rapidSTORM")


def _table(frame: Any, x_nm: Any, y_nm: Any) -> Table:
    return {"frame": np.asarray(frame).astype(int), "x_nm": x_nm, "y_nm": y_nm}


def camera_maps(data: Path, folder: Path, path: str) -> dict[str, str]:
    """Write the maps of a camera beside a series as TIFF, and return the settings that name them.

    The array holds offset [ADU], variance [ADU²] and gain [ADU/e⁻], each turned against the film.
    """
    offset, variance, gain = (plane.T for plane in np.load(data / path))
    maps = {"dark_map": offset, "variance_map": variance / gain**2, "flatfield_map": np.median(gain) / gain}
    for name, values in maps.items():
        tifffile.imwrite(folder / f"{name}.tif", values.astype(np.float32))
    return {name: f"{name}.tif" for name in maps}


_DAOSTORM = camera(0.16, 100, 1, 1)
_DENSE = camera(0.1, 100, 1, 1)
_SCMOS = camera(0.16, 90.4, 1 / 2.11, 1.13)
_WIDE = {"psf_sigma_nm": 150, "background": "0:0"}
_NO_WINDOW = {"background": "0:0"}
_OLIST = ("frame_1based", "x_px_0based_center", "y_px_0based_center")
_PYME_TRUTH = of_csv("pyme_h5r/sim_truth_first_200_frames.csv", ("frame", "x_nm", "y_nm"), first_frame=0)
_PICASSO = of_picasso("picasso_sim_dnapaint/testdata_locs_picasso_HEAD.hdf5", 160.0)
_PAINT = {"preset": "dna-paint"}
_PICASSO_RAW = "picasso_sim_dnapaint/testdata.raw"
_SCMOS_DAX = "storm_analysis_scmos/sample.dax"


def _olist(name: str) -> Positions:
    return of_csv(f"storm_analysis_sim/{name}.csv", _OLIST, scale_nm=160)


SERIES = [
    Series("pyme_h5r/sim_200f.tif", known=_PYME_TRUTH),
    Series("pyme_h5r/sim_40f.h5"),
    Series("storm_analysis_sim/test.dax", _DAOSTORM, _WIDE, _olist("test_olist")),
    Series("storm_analysis_sim/test_300x200.dax", _DAOSTORM, _WIDE, _olist("test_300x200_olist")),
    Series("storm_analysis_sim/test_low_snr.dax", _DAOSTORM, _WIDE, _olist("test_low_snr_list")),
    # a double helix is no Gaussian: that it opens, and that nothing breaks, is all one can ask
    Series("storm_analysis_sim/test_300x200_dh.dax", _DAOSTORM, _WIDE),
    Series("storm_analysis_sim/test_bg_sub.dax", _DAOSTORM, _WIDE),
    Series(
        "deepstorm_bundled_tubes_hd/testStack_SimulatedMicrotubules.tif",
        _DENSE,
        {**_NO_WINDOW, "debounce_radius": 2},
        of_csv(
            "deepstorm_bundled_tubes_hd/testStack_ground_truth.csv", ("frame", "xnano", "ynano"), shift_nm=-50
        ),
    ),
    Series(
        "deepstorm_bundled_tubes_hd/ArtificialDataset_demo1.tif",
        _DENSE,
        {**_NO_WINDOW, "debounce_radius": 2},
        of_csv(
            "deepstorm_bundled_tubes_hd/ArtificialDataset_demo1_positions.csv",
            ("frame", "x [nm]", "y [nm]"),
            shift_nm=-50,
        ),
    ),
    Series(_PICASSO_RAW, camera(0.16, 0, 1, 1), _PAINT, _PICASSO),
    Series(
        "pyme_made_from_real_frames/picasso_sim_dnapaint_1000f.h5",
        camera(0.16, 0, 1, 1),
        _PAINT,
        _PICASSO,
        same_as=_PICASSO_RAW,
    ),
    Series("picasso_workflow_dnapaint_real/3C_30px_shifted.ome.raw", camera(0.13, 400, 0.46, 1.4), _PAINT),
    Series(
        "locan_dstorm_images/images.tif",
        camera(0.1335, 430, 1, 5),
        _NO_WINDOW,
        of_rapidstorm("locan_dstorm_images/rapidSTORM_from_images.txt", 5),
    ),
    Series(_SCMOS_DAX, _SCMOS, _NO_WINDOW, molecules=756, maps="storm_analysis_scmos/calib.npy"),
    Series("pyme_made_from_real_frames/storm_scmos_10f.h5", _SCMOS, _NO_WINDOW, same_as=_SCMOS_DAX),
    Series("pyme_made_from_real_frames/storm_scmos_pzf_aggregate.h5", _SCMOS, _NO_WINDOW, same_as=_SCMOS_DAX),
    Series("pyme_made_from_real_frames/pzf/raw", _SCMOS, _NO_WINDOW, same_as=_SCMOS_DAX),
    Series("pyme_made_from_real_frames/pzf/huff", _SCMOS, _NO_WINDOW, same_as=_SCMOS_DAX),
    Series("pyme_made_from_real_frames/pzf/huff_sqrtquant", _SCMOS, _NO_WINDOW),  # not the same: lossy
    Series("storm_analysis_real3d/comp.dax", camera(0.167, 100, 0.2, 1), _WIDE, molecules=856),
    Series(
        "storm_analysis_real3d/comp.tif",
        camera(0.167, 100, 0.2, 1),
        _WIDE,
        same_as="storm_analysis_real3d/comp.dax",
    ),
    Series("smlm2016_beads_as_sage/Beads-AS-Exp.tif", _DENSE, {"preset": "beads"}),
    *(
        # photons of a brighter bead than the stack, whose sum is one
        Series(f"pyme_psf_tifs/{name}.tif", {"Camera.ElectronsPerCount": 3000}, {"preset": "beads"})
        for name in ("astig_theory", "beads1", "psf_astig", "psf_astig_pe", "test")
    ),
]
RESULTS = [
    "pyme_h5r/1_2_series_D.h5r",
    "pyme_h5r/1_2_series_E.h5r",
    "pyme_h5r/pyme_cluster_200f.h5r",
    "pyme_h5r/written_by_pyme_26.09.h5r",
]
