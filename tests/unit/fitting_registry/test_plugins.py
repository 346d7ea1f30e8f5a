"""Fits of other packages: found by their entry point, used like our own, and harmless when they are broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitting import analyse, fits
from fitting.errors import InvalidSettings

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "radial-symmetry"
METADATA: dict[str, object] = {
    "voxelsize.x": 0.1,
    "voxelsize.y": 0.1,
    "Camera.ADOffset": 100.0,
    "Camera.ElectronsPerCount": 0.5,
    "Camera.ReadNoise": 1.6,
}
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package beside its entry points on the path, as an installer leaves them."""

    def put(name: str, entry_points: str, folder: Path | None = None, source: str = "") -> None:
        noted = tmp_path / f"{name.replace('-', '_')}-0.1.0.dist-info"
        noted.mkdir()
        (noted / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n", encoding="utf-8"
        )
        (noted / "entry_points.txt").write_text(f"[clusterofone.fits]\n{entry_points}\n", encoding="utf-8")
        if source:
            (tmp_path / f"{name.replace('-', '_')}.py").write_text(source, encoding="utf-8")
        for place in (tmp_path, *([folder] if folder else [])):
            if str(place) not in sys.path:
                monkeypatch.syspath_prepend(str(place))
        sys.path_importer_cache.clear()
        monkeypatch.setattr(sys, "path", [*sys.path, f"/nowhere/{name}"])  # what is known of a path is kept

    return put


@pytest.fixture
def example(install: Install) -> None:
    declared = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    assert 'radial-symmetry = "radial_symmetry:FIT"' in declared
    install("radial-symmetry", "radial-symmetry = radial_symmetry:FIT", EXAMPLE)


@pytest.mark.usefixtures("example")
def test_the_example_is_listed_and_validated_without_loading_its_kernels() -> None:
    fit = fits.find("radial-symmetry")

    assert fits.known_fits()["RadialSymmetryFitR"] is fit
    assert fits.identity("RadialSymmetryFitR") == "RadialSymmetryFitR (radial-symmetry 0.1.0)"
    assert "radial_symmetry.fit" not in sys.modules
    settings = fits.resolve({"fit": "radial-symmetry", "options": {"smooth": 0}}, METADATA)
    assert (settings["fit"], settings["options"]) == ("RadialSymmetryFitR", {"smooth": False})
    with pytest.raises(InvalidSettings, match="its options are smooth"):
        fits.resolve({"fit": "radial-symmetry", "options": {"smoth": True}}, METADATA)
    options: Any = fits.json_schema(fit)["properties"]
    assert options["options"]["properties"]["smooth"]["default"] is True


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("smooth", [True, False])
def test_the_example_finds_molecules_where_they_are(smooth: bool) -> None:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:40, :40]
    places = rng.uniform(10, 30, (40, 2))
    spots = [3000 / (2 * np.pi * 1.69) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 3.38) for cx, cy in places]
    frames = np.round(100 + rng.poisson(10 + np.array(spots)) / 0.5).astype(np.uint16)
    analysis = {
        "fit": "RadialSymmetryFitR",
        "background": None,
        "threshold": 2,
        "options": {"smooth": smooth},
    }

    rows = analyse(frames, analysis, METADATA).rows

    assert (rows["tIndex"] == np.arange(40)).all()
    assert (rows["resultCode"] == 1).all()
    for name, true in (("x0", places[:, 0]), ("y0", places[:, 1])):
        error_nm = rows["fitResults"][name] - 100 * true
        assert np.sqrt(np.mean(error_nm**2)) < 8  # the bound for 3000 photons is about 3 nm
        assert abs(error_nm.mean()) < 4


CHANGED = "import dataclasses, numpy\nfrom fitting.fits import FITS\nFIT = dataclasses.replace(FITS['LatGaussFitFR'], {})"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("FIT = 7", "is a int, not a Fit"),
        ("import nothing_of_that_name", "cannot be loaded: ModuleNotFoundError"),
        ("from fitting.fits import FITS\nFIT = FITS['LatGaussFitFR']", "is taken"),
        (CHANGED.format("name='Mine', aliases=(), layout=lambda s: numpy.dtype([('a', 'i4')])"), "no layout"),
        (CHANGED.format("name='Mine', aliases=(), needs=('magic',)"), "settings that there are not: magic"),
    ],
)
def test_a_broken_plug_in_is_named_and_keeps_nobody_from_working(
    install: Install, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    monkeypatch.delitem(sys.modules, "broken_fit", raising=False)
    install("broken-fit", "mine = broken_fit:FIT", source=source)

    with pytest.raises(InvalidSettings) as caught:
        fits.find("Mine")

    assert "broken_fit:FIT" in str(caught.value)
    assert said in str(caught.value)
    assert fits.resolve({}, METADATA)["fit"] == "LatGaussFitFR"
    assert "Mine" not in fits.known_fits()


def test_a_plug_in_whose_rows_are_not_as_it_declares_is_found_out(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "other_rows", raising=False)
    source = CHANGED.format("name='Other', aliases=(), run='other_rows:fit'") + (
        "\ndef fit(batch): return numpy.zeros(batch.number, [('tIndex', 'i4')])\n"
    )
    install("other-rows", "other = other_rows:FIT", source=source)

    with pytest.raises(InvalidSettings, match="Other gave rows of another layout"):
        analyse(np.full((1, 20, 20), 100, np.uint16), {"fit": "Other"}, METADATA)
