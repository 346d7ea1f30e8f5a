"""For which series a profile is, what it says of them, and what is refused by name."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from cluster.errors import Invalid, NotFound
from cluster.profile_template import template
from cluster.profiles import Profile, chosen, named, parse_profile


def profile(text: str, file: str = "left.toml") -> Profile:
    return parse_profile(file, tomllib.loads(text))


SERIES: dict[str, Any] = {
    "Camera.SerialNumber": "SN-17",
    "Camera.IntegrationTime": 0.03,
    "Camera.Binning": 2,
    "Camera.Cooled": True,
}


@pytest.mark.parametrize(
    ("when", "is_for"),
    [
        ('Camera.SerialNumber = "SN-17"', True),
        ('"Camera.SerialNumber" = "sn-17 "', True),
        ('Camera.SerialNumber = ["SN-3", "SN-17"]', True),
        ('Camera.SerialNumber = "SN-18"', False),
        ('Camera.SerialNumber = "SN-17"\nCamera.Binning = 1', False),
        ('Camera.SerialNumber = "SN-17"\nCamera.Binning = 2.0', True),
        ("Camera.IntegrationTime = { from = 0.03, to = 0.05 }", True),
        ("Camera.IntegrationTime = { from = 0.031 }", False),
        ("Camera.IntegrationTime = { to = 0.03 }", True),
        ("Camera.SerialNumber = { from = 1, to = 2 }", False),
        ("Camera.Cooled = true", True),
        ('Camera.Model = "Prime"', False),
        ("", False),
    ],
)
def test_every_line_under_when_must_hold(when: str, is_for: bool) -> None:
    assert profile(f"[when]\n{when}").is_for(SERIES) is is_for


@pytest.mark.parametrize(("said", "wanted"), [(1217, '"1217"'), ("1217", "1217"), (1217.0, "1217")])
def test_a_serial_number_is_the_same_as_a_text_and_as_a_number(said: Any, wanted: str) -> None:
    assert profile(f"[when]\nCamera.SerialNumber = {wanted}").is_for({"Camera.SerialNumber": said})


def test_an_exposure_at_the_end_of_a_range_is_in_it_however_it_was_rounded() -> None:
    one = profile("[when]\nCamera.IntegrationTime = { from = 0.01, to = 0.03 }")

    assert one.is_for({"Camera.IntegrationTime": 0.1 * 3 / 10})
    assert one.is_for({"Camera.IntegrationTime": 0.0099999999})


def test_it_says_why_it_is_not_for_a_series() -> None:
    one = profile('[when]\nCamera.SerialNumber = "SN-17"\nCamera.Model = "Prime"')

    assert one.why_not(SERIES) == "the series does not say Camera.Model, not Prime"
    assert one.why_not({"Camera.SerialNumber": "SN-3"}) == "Camera.SerialNumber is SN-3, not SN-17"
    assert "microscope=left" in profile("").why_not(SERIES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[when]\nCamera.SerialNumber = { form = 1, to = 2 }", "when: Camera.SerialNumber must be { from"),
        ('[when]\nCamera.SerialNumber = { from = "a" }', "when: Camera.SerialNumber must be numbers"),
        ("[when]\nCamera.SerialNumber = { from = 2, to = 1 }", "from 2 is above to 1"),
        ("[when]\nCamera.SerialNumber = {}", "when: Camera.SerialNumber"),
        ("[when]\nCamera.SerialNumber = []", "when: Camera.SerialNumber must be a text"),
        ("[when]\nCamera.SerialNumber = 2020-01-01", "when: Camera.SerialNumber must be a text"),
        ("when = 3", "when must be a table"),
    ],
)
def test_for_whom_it_is_must_be_clear(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=r"left\.toml: ") as refused:
        profile(text)

    assert said in refused.value.detail


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[values]\nCamera.ADOfset = 100",
            "values: Camera.ADOfset is unknown; did you mean Camera.ADOffset?",
        ),
        ("[values]\nvoxelsize.x = 100", "values: voxelsize.x is 100: it must be over 0 and at most 10 µm"),
        ('[values]\nvoxelsize.x = "0.1"', "values: voxelsize.x must be a number"),
        ("[values]\nAnalysis.DetectionThreshold = -1", "values: threshold"),
        ("[values]\nStartTime = 2020-01-01", "values: StartTime must be a number, a text or a list"),
        ('[values]\nCamera.DarkMapID = "a.tif"', 'write it under [[maps]] as dark_map = "FILE"'),
        ("[valeus]\nvoxelsize.x = 1", "valeus is unknown; did you mean values?"),
        ("title = 3", "title must be a text"),
        ('[[maps]]\ndark = "a.tif"', "maps 1: dark is unknown; there are variance_map, dark_map"),
        ("[[maps]]\ndark_map = 3", "maps 1: dark_map must be the path"),
        ("[[maps]]\nexposure_s = [0.1, 0.2]", "maps 1: names no map"),
        (
            '[[maps]]\ndark_map = "a.tif"\n[[maps]]\ndark_map = "b.tif"\nexposure_s = "10 ms"',
            "maps 2: exposure_s",
        ),
        ("maps = 3", "maps must be tables"),
    ],
)
def test_what_else_is_wrong_is_kept_for_the_series_that_it_is_for(text: str, said: str) -> None:
    top, _, tables = text.partition("[") if not text.startswith("[") else ("", "", text[1:])
    broken = profile(f'{top}\n[when]\nCamera.SerialNumber = "SN-17"\n' + (f"[{tables}" if tables else ""))

    assert broken.is_for(SERIES)
    assert broken.fault is not None
    assert broken.fault.startswith("left.toml: ")
    assert said in broken.fault


def test_maps_of_an_exposure_come_before_those_of_any() -> None:
    one = profile(
        '[[maps]]\ndark_map = "any.tif"\nflatfield_map = "flat.tif"\n'
        '[[maps]]\ndark_map = "short.tif"\nexposure_s = [0.005, 0.02]\n'
        '[[maps]]\ndark_map = "long.tif"\nexposure_s = 0.1'
    )

    assert [one.map_file("dark_map", exposure) for exposure in (0.01, 0.1, 0.05, None)] == [
        "short.tif",
        "long.tif",
        "any.tif",
        "any.tif",
    ]
    assert one.map_file("flatfield_map", 0.01) == "flat.tif"
    assert one.map_file("variance_map", 0.01) is None


def test_two_maps_for_one_exposure_are_refused() -> None:
    one = profile(
        '[[maps]]\ndark_map = "a.tif"\nexposure_s = [0, 0.02]\n[[maps]]\ndark_map = "b.tif"\nexposure_s = [0.01, 1]'
    )

    with pytest.raises(Invalid, match=r"left\.toml: maps: dark_map: both a\.tif and b\.tif .* 0\.015"):
        one.map_file("dark_map", 0.015)


def test_the_more_particular_profile_wins_and_equal_ones_must_agree() -> None:
    wide = profile('[when]\nCamera.SerialNumber = "SN-17"', "wide.toml")
    narrow = profile('[when]\nCamera.SerialNumber = "SN-17"\nCamera.Binning = 2', "narrow.toml")
    other = profile('[when]\nCamera.SerialNumber = "SN-17"\nCamera.Cooled = true', "other.toml")

    assert chosen([(wide, 1), (narrow, 2)], "Camera.ADOffset") == (narrow, 2)
    assert chosen([(narrow, 2), (other, 2.0)], "Camera.ADOffset") == (narrow, 2)
    assert chosen([], "Camera.ADOffset") is None
    with pytest.raises(Invalid, match=r"Camera\.ADOffset: .*narrow\.toml \(2\) and other\.toml \(3\)"):
        chosen([(narrow, 2), (other, 3), (wide, 9)], "Camera.ADOffset")


def test_one_that_is_named_is_found_whatever_its_case_else_those_there_are_are_named() -> None:
    left = profile("", "Left Port.toml")

    assert named([left], "left port") is left
    assert named([left], "Left Port.toml") is left
    with pytest.raises(NotFound, match="there is no profile 'right'; there are Left Port"):
        named([left], "right")
    with pytest.raises(NotFound, match="there are no profiles"):
        named([], "right")


def test_none_is_no_name() -> None:
    with pytest.raises(Invalid, match="means no profile at all"):
        profile("", "None.toml")


def test_a_profile_that_was_begun_from_a_series_is_for_it_and_says_what_it_says() -> None:
    said = SERIES | {"voxelsize.x": 0.108, "Camera.Name": 'a "b" \\ µ', "Camera.ADOffset": 100}

    begun = profile(template("left", said))
    without = profile(template("left", {}))
    by_name = profile(template("left", {"Camera.Name": said["Camera.Name"]}))

    assert begun.fault is None
    assert begun.is_for(said)
    assert begun.values == {"voxelsize.x": 0.108, "Camera.ADOffset": 100}
    assert without == Profile("left.toml", "left")
    assert by_name.is_for(said)


def test_what_the_template_leaves_to_be_filled_in_is_right_once_it_is_no_comment() -> None:
    lines = template("left", {"Camera.IntegrationTime": 0.05}).splitlines()
    text = "\n".join(line.removeprefix("# ") for line in lines[2:] if "paths from" not in line)

    filled = profile(text.replace("= …", "= 1.5"))

    assert filled.fault is None
    assert filled.map_file("dark_map", 0.05) == "left/dark_50ms.tif"
    assert filled.map_file("variance_map", 0.02) is None
    assert filled.values["Camera.ReadNoise"] == 1.5
    with pytest.raises(tomllib.TOMLDecodeError):  # no number that nobody measured is used by mistake
        tomllib.loads(text)
