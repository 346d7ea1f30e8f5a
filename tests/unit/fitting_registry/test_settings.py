"""What a person may give as settings, and what becomes of it."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitting import fits
from fitting.errors import InvalidMetadata, InvalidSettings
from fitting.fits import FITS, SETTINGS, find, json_schema, resolve

PIXEL_100_NM = {"voxelsize.x": 0.1, "voxelsize.y": 0.1}


def test_nothing_given_resolves_to_the_defaults() -> None:
    settings = resolve({}, PIXEL_100_NM)

    assert settings == {
        "fit": "LatGaussFitFR",
        "threshold": 1.0,
        "start_at": 0,
        "stop_at": None,
        "roi": None,
        "background": "-30:0",
        "background_percentile": 0.25,
        "subtract_background": True,
        "debounce_radius": 4.0,
        "roi_half_size": 3,
        "psf_sigma_nm": 250 / 2.35,
        "lowpass_sigma": 1.0,
        "highpass_sigma": 3.0,
        "estimator": "mle",
        "variance_map": None,
        "dark_map": None,
        "flatfield_map": None,
        "psf": None,
        "interpolator": None,
        "sigma_curves": None,
        "shifts": None,
        "channel0_roi": None,
        "channel1_roi": None,
        "flip": True,
        "track_fiducials": False,
        "fiducial_threshold": 1.8,
        "fiducial_diameter_nm": 1000.0,
        "fiducial_roi_half_size": 11,
        "idle_limit_s": 600.0,
        "rest_s": 30.0,
        "options": {},
    }


def test_analysis_beats_metadata_and_metadata_beat_the_default() -> None:
    metadata = PIXEL_100_NM | {"Analysis.DetectionThreshold": 2.0, "Analysis.DebounceRadius": 5}

    settings = resolve({"threshold": 3.0}, metadata)

    assert (settings["threshold"], settings["debounce_radius"]) == (3.0, 5.0)


def test_a_setting_may_be_given_by_its_pyme_key() -> None:
    settings = resolve({"Analysis.DetectionThreshold": 2, "Camera.VarianceMapID": "var.tif"}, PIXEL_100_NM)

    assert (settings["threshold"], settings["variance_map"]) == (2.0, "var.tif")


def test_a_setting_given_twice_with_different_values_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="given twice") as caught:
        resolve({"threshold": 1.0, "Analysis.DetectionThreshold": 2.0}, PIXEL_100_NM)
    assert caught.value.field == "threshold"

    assert resolve({"threshold": 2, "Analysis.DetectionThreshold": 2.0}, PIXEL_100_NM)["threshold"] == 2.0


@pytest.mark.parametrize(
    ("given_name", "suggested"),
    [
        ("treshold", "threshold"),
        ("Threshold", "threshold"),
        ("Analysis.DetectionTreshold", "Analysis.DetectionThreshold"),
        ("Analysis.SubtractBackground", "Analysis.subtractBackground"),
        ("backgroundd", "background"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(given_name: str, suggested: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        resolve({given_name: 1}, PIXEL_100_NM)

    assert caught.value.field == given_name
    assert f"did you mean {suggested}?" in str(caught.value)


def test_a_metadata_key_among_the_settings_is_sent_to_the_metadata() -> None:
    with pytest.raises(InvalidSettings, match="belongs in the metadata"):
        resolve({"Camera.ADOffset": 100}, PIXEL_100_NM)


def test_unknown_analysis_keys_of_a_file_are_passed_over() -> None:
    assert resolve({}, PIXEL_100_NM | {"Analysis.SNRThreshold": True}) == resolve({}, PIXEL_100_NM)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("threshold", "high", "must be a number"),
        ("threshold", True, "must be a number"),
        ("threshold", math.nan, "finite"),
        ("threshold", -1, "out of range"),
        ("threshold", None, "null"),
        ("threshold", 10**400, "out of range"),
        ("stop_at", 2.5, "whole number"),
        ("stop_at", 0, "out of range"),
        ("start_at", "soon", "auto"),
        ("start_at", -3, "out of range"),
        ("roi", [0, 0, 10], "x0, y0, x1, y1"),
        ("roi", [10, 0, 10, 20], "empty"),
        ("roi", [-1, 0, 10, 20], "out of range"),
        ("background", "-30", "slice"),
        ("background", "0:-30", "ends before it starts"),
        ("background", [1, 2, 3], "slice"),
        ("background", "-99999:0", "out of range"),
        ("background_percentile", 25, "25th percentile"),
        ("subtract_background", "yes", "true or false"),
        ("estimator", "mlee", "mle, wls"),
        ("dark_map", 7, "path"),
        ("options", [], "object"),
        ("roi_half_size", 51, "out of range"),
        ("fit", "NoSuchFit", "LatGaussFitFR"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: object, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        resolve({name: value}, PIXEL_100_NM)

    assert caught.value.field == name
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)


def test_a_bad_value_in_the_metadata_names_the_metadata_key() -> None:
    with pytest.raises(InvalidSettings, match=r"Analysis\.ROISize in the metadata") as caught:
        resolve({}, PIXEL_100_NM | {"Analysis.ROISize": 7.5})
    assert caught.value.field == "roi_half_size"


@pytest.mark.parametrize("given_as", ["-30:0", [-30, 0], (-30, 0), " -30 : 0 ", np.array([-30, 0])])
def test_a_background_window_has_one_canonical_form(given_as: object) -> None:
    assert resolve({"background": given_as}, PIXEL_100_NM)["background"] == "-30:0"


@pytest.mark.parametrize("given_as", ["0:0", None, [0, 0], "5:5"])
def test_an_empty_background_window_is_null(given_as: object) -> None:
    settings = resolve({"background": given_as}, PIXEL_100_NM)

    assert settings["background"] is None
    assert fits.background_window(settings) is None


def test_pyme_writes_zero_for_no_percentile_and_a_word_for_no_map() -> None:
    metadata = PIXEL_100_NM | {
        "Analysis.PCTBackground": 0,
        "Camera.DarkMapID": "<none>",
        "Camera.VarianceMapID": "",
    }

    settings = resolve({}, metadata)

    assert settings["background_percentile"] is None
    assert settings["dark_map"] is None
    assert settings["variance_map"] is None


def test_numpy_scalars_from_a_file_are_as_good_as_pythons() -> None:
    metadata = PIXEL_100_NM | {
        "Analysis.StartAt": np.int64(30),
        "Analysis.DetectionThreshold": np.float64(2),
        "Analysis.subtractBackground": np.uint8(0),
        "Analysis.TrackFiducials": np.bool_(True),
        "Analysis.FitModule": np.str_("LatGaussFitFR"),
    }

    settings = resolve({}, metadata)

    assert (settings["start_at"], settings["threshold"]) == (30, 2.0)
    assert (settings["subtract_background"], settings["track_fiducials"]) == (False, True)
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("facts", "start"),
    [
        ({}, 0),
        ({"Protocol.DataStartsAt": 50}, 50),
        ({"EstimatedLaserOnFrameNo": 20}, 20),
        ({"EstimatedLaserOnFrameNo": 0}, 0),
        ({"EstimatedLaserOnFrameNo": -1}, 0),
        ({"Protocol.DataStartsAt": 50, "EstimatedLaserOnFrameNo": 20}, 50),
        ({"Protocol.DataStartsAt": 50, "Analysis.StartAt": 30}, 30),
    ],
)
def test_auto_starts_where_the_metadata_say_data_start(facts: dict[str, object], start: int) -> None:
    assert resolve({}, PIXEL_100_NM | facts)["start_at"] == start


def test_a_first_data_frame_that_is_no_frame_number_is_refused() -> None:
    with pytest.raises(InvalidMetadata) as caught:
        resolve({}, PIXEL_100_NM | {"Protocol.DataStartsAt": "late"})
    assert caught.value.keys == ("Protocol.DataStartsAt",)


@pytest.mark.parametrize(
    ("analysis", "pixel_um", "half_size"),
    [
        ({}, 0.1, 3),
        ({"psf_sigma_nm": 130}, 0.1, 3),
        ({"psf_sigma_nm": 200}, 0.1, 5),
        ({}, 0.05, 5),
        ({"estimator": "wls"}, 0.1, 5),
        ({"roi_half_size": 7}, 0.1, 7),
    ],
)
def test_the_region_follows_the_psf_unless_it_is_given(
    analysis: dict[str, object], pixel_um: float, half_size: int
) -> None:
    metadata = {"voxelsize.x": pixel_um, "voxelsize.y": pixel_um}

    assert resolve(analysis, metadata)["roi_half_size"] == half_size


def test_without_a_pixel_size_the_region_stays_open() -> None:
    assert resolve({}, {})["roi_half_size"] is None


def test_a_pixel_size_in_metres_is_noticed() -> None:
    with pytest.raises(InvalidSettings, match=r"check psf_sigma_nm and voxelsize\.x"):
        resolve({}, {"voxelsize.x": 1e-7, "voxelsize.y": 1e-7})


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="lowpass_sigma"):
        resolve({"highpass_sigma": 1.0}, PIXEL_100_NM)
    with pytest.raises(InvalidSettings, match="not after start_at"):
        resolve({"start_at": 10, "stop_at": 10}, PIXEL_100_NM)


def test_a_setting_the_fit_does_not_use_is_refused_in_a_job_and_passed_over_in_a_file() -> None:
    with pytest.raises(InvalidSettings, match="does not use it") as caught:
        resolve({"psf": "beads.tif"}, PIXEL_100_NM)
    assert caught.value.field == "psf"

    assert resolve({}, PIXEL_100_NM | {"PSFFile": "beads.tif"})["psf"] is None
    assert resolve({"psf": None}, PIXEL_100_NM)["psf"] is None


def test_options_of_another_fit_are_refused() -> None:
    with pytest.raises(InvalidSettings) as caught:
        resolve({"options": {"magic": 1}}, PIXEL_100_NM)
    assert caught.value.field == "options.magic"


def test_maps_may_be_arrays() -> None:
    variance = np.ones((4, 5), np.float32)

    assert resolve({"variance_map": variance}, PIXEL_100_NM)["variance_map"] is variance


@pytest.mark.parametrize("name", ["LatGaussFitFR", "latgaussfitfr", "gaussian", "2D"])
def test_a_fit_is_found_by_name_and_alias_in_any_case(name: str) -> None:
    assert find(name) is FITS["LatGaussFitFR"]
    assert resolve({"fit": name}, PIXEL_100_NM)["fit"] == "LatGaussFitFR"


def test_errors_survive_a_trip_between_processes() -> None:
    for error in (InvalidSettings("roi", "empty"), InvalidMetadata(("voxelsize.x",), "it is missing")):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


ANALYSES = st.fixed_dictionaries(
    {},
    optional={
        "threshold": st.floats(0.01, 1000),
        "start_at": st.one_of(st.just("auto"), st.integers(0, 1000)),
        "stop_at": st.one_of(st.none(), st.integers(1001, 5000)),
        "roi": st.sampled_from([None, [0, 0, 10, 10], (3, 4, 50, 60)]),
        "background": st.sampled_from([None, "0:0", "-30:0", [-15, 15], "1:31"]),
        "background_percentile": st.one_of(st.none(), st.floats(0, 1)),
        "subtract_background": st.sampled_from([True, False, 0, 1]),
        "estimator": st.sampled_from(["mle", "wls", "MLE"]),
        "psf_sigma_nm": st.floats(50, 400),
        "dark_map": st.sampled_from([None, "dark.tif", "<none>"]),
        "fit": st.sampled_from(["gauss", "LatGaussFitFR"]),
    },
)


@given(analysis=ANALYSES, laser_on=st.integers(0, 900), pixel_um=st.sampled_from([None, 0.065, 0.16]))
def test_a_resolved_analysis_resolves_to_itself(
    analysis: dict[str, object], laser_on: int, pixel_um: float | None
) -> None:
    metadata: dict[str, object] = {"EstimatedLaserOnFrameNo": laser_on, "Analysis.DetectionThreshold": 2.5}
    metadata |= {} if pixel_um is None else {"voxelsize.x": pixel_um, "voxelsize.y": pixel_um}

    resolved = resolve(analysis, metadata)

    assert resolve(resolved, metadata) == resolved
    assert set(resolved) == {setting.name for setting in SETTINGS}
    assert resolve(json.loads(json.dumps(resolved)), metadata) == resolved


def test_the_schema_describes_every_setting_and_allows_no_other() -> None:
    schema = json.loads(json.dumps(json_schema(find("gauss"))))

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {setting.name for setting in SETTINGS}
    assert all({"default", "description"} <= set(described) for described in schema["properties"].values())
    assert schema["properties"]["threshold"] == {
        "type": "number",
        "minimum": 0.01,
        "maximum": 1000.0,
        "default": 1.0,
        "description": "Factor on the local signal-to-noise threshold of detection; 1.0 means what it means in PYME.",
        "x-unit": "1",
        "x-pyme-key": "Analysis.DetectionThreshold",
    }
    assert schema["properties"]["options"]["additionalProperties"] is False
    assert {"type": "null"} in schema["properties"]["stop_at"]["anyOf"]


def test_defaults_are_not_shared_between_analyses() -> None:
    resolve({}, {})["options"]["mine"] = 1  # type: ignore[index]

    assert resolve({}, {})["options"] == {}
