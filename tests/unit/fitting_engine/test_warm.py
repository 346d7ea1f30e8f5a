"""Getting ready for a job: calibrations are known by their path only, and no molecule has been seen."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from fitting import warm
from fitting.fits import FITS, resolve
from fitting.warm import kernels_of, warm_up

METADATA: dict[str, object] = {"voxelsize.x": 0.1, "voxelsize.y": 0.1}


def settings_of(name: str, **given: object) -> dict[str, object]:
    fit = FITS[name]
    needs = dict.fromkeys(fit.needs, "psf.tif")
    used = {"sigma_curves": "curves.json", "shifts": "shifts.json"}
    used = {key: path for key, path in used.items() if key not in fit.unused}
    return resolve({"fit": name, **needs, **used, **given}, METADATA)


@pytest.mark.parametrize("name", FITS)
def test_a_worker_gets_ready_for_any_fit(name: str) -> None:
    warm_up(settings_of(name), "uint16")


def test_analyses_that_run_other_kernels_are_told_apart() -> None:
    analyses = [
        resolve({}, METADATA),
        resolve({"estimator": "wls"}, METADATA),
        resolve({"background_percentile": None}, METADATA),
        settings_of("AstigGaussFitFR"),
        settings_of("SplitterFitFNR"),
        settings_of("InterpFitR"),
    ]

    kinds = {kernels_of(settings, "uint16") for settings in analyses}

    assert len(kinds) == len(analyses)
    assert kernels_of(analyses[0], "float32") not in kinds
    assert kernels_of(settings_of("InterpFitR", threshold=3.0), "uint16") in kinds


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What second processes were asked to compile; none is started."""
    said: list[list[str]] = []

    def start(command: list[str], **_: object) -> None:
        said.append(command)
        raise OSError("no more processes")

    monkeypatch.setattr(warm, "folder_of_kernels", lambda _: tmp_path)
    monkeypatch.setattr(warm, "_cores", lambda: 2)
    monkeypatch.setattr(warm.subprocess, "Popen", start)
    return said


def test_a_second_process_is_asked_once_for_each_kind_of_analysis(asked: list[list[str]]) -> None:
    for settings in ({}, {}, {"estimator": "wls"}, {"threshold": 2.0}):
        warm_up(settings)

    assert [json.loads(command[-2]).get("estimator") for command in asked] == [None, "wls"]
    assert [command[-1] for command in asked] == ["uint16"] * 2


def test_one_core_has_no_second_process(asked: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_cores", lambda: 1)

    warm_up({})

    assert not asked


def test_the_garbage_collector_is_left_as_it_was(asked: list[list[str]]) -> None:
    before = gc.get_threshold()

    warm_up({})

    assert asked
    assert gc.get_threshold() == before
