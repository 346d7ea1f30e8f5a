"""Pictures: every localisation in its place, as wide as its error, and no wider."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from cluster.errors import Conflict, Invalid
from cluster.results.h5r import Writer
from cluster.results.picture_files import Look, Tones, before_and_after, colours, png, render_file, save_tiff
from cluster.results.provenance import Provenance
from cluster.results.render import Field, Picture, field_of, finest_pixel_nm, nice_above, render
from cluster.results.tints import Tint, tint_of
from fitting.localisations import ResultCode

MakeRows = Callable[..., np.ndarray]
FIELD = Field.of_frame(48, 64, 100.0, 100.0)


@pytest.fixture
def one_row(make_rows: MakeRows) -> Callable[..., np.ndarray]:
    def one_row(x_nm: float, y_nm: float, x_err_nm: float = 10.0, y_err_nm: float = 10.0) -> np.ndarray:
        row = make_rows(1)
        row["fitResults"]["x0"], row["fitResults"]["y0"] = x_nm, y_nm
        row["fitError"]["x0"], row["fitError"]["y0"] = x_err_nm, y_err_nm
        return row

    return one_row


@pytest.mark.parametrize("mode", ["gaussian", "histogram"])
def test_every_localisation_adds_one(make_rows: MakeRows, mode: Any) -> None:
    rows = make_rows(500)
    rows["fitResults"]["x0"] = rows["fitResults"]["x0"].clip(200, 6000)
    rows["fitResults"]["y0"] = rows["fitResults"]["y0"].clip(200, 4500)

    picture = render([rows[:200], rows[200:]], FIELD, pixel_nm=10, mode=mode)

    assert picture.image.shape == (480, 640)
    assert picture.image.sum() == pytest.approx(500, rel=2e-3)
    assert (picture.shown, picture.hidden) == (500, 0)


def test_the_centre_of_the_cameras_first_pixel_is_half_a_pixel_in(one_row: Callable[..., np.ndarray]) -> None:
    picture = render([one_row(0.0, 100.0)], FIELD, pixel_nm=20, mode="histogram")

    assert np.argwhere(picture.image).tolist() == [[7, 2]]


def test_a_localisation_is_drawn_as_wide_as_it_is_uncertain(one_row: Callable[..., np.ndarray]) -> None:
    image = render([one_row(3000.0, 2000.0, 30.0, 12.0)], FIELD, pixel_nm=5).image.astype(float)

    y, x = np.indices(image.shape)
    centre_x, centre_y = ((axis * image).sum() / image.sum() for axis in (x, y))
    assert (centre_x + 0.5) * 5 - 50 == pytest.approx(3000, abs=0.1)
    assert (centre_y + 0.5) * 5 - 50 == pytest.approx(2000, abs=0.1)
    assert np.sqrt(((x - centre_x) ** 2 * image).sum() / image.sum()) * 5 == pytest.approx(30, rel=0.03)
    assert np.sqrt(((y - centre_y) ** 2 * image).sum() / image.sum()) * 5 == pytest.approx(12, rel=0.03)


def test_a_picture_does_not_depend_on_how_rows_come(make_rows: MakeRows) -> None:
    rows = make_rows(400)

    once = render([rows], FIELD, pixel_nm=20).image
    often = render(np.array_split(rows, 37), FIELD, pixel_nm=20).image

    assert np.allclose(once, often, atol=1e-6)


def test_what_should_not_be_shown_is_hidden(make_rows: MakeRows) -> None:
    rows = make_rows(6)
    rows["resultCode"][0] = ResultCode.ITERATION_LIMIT
    rows["resultCode"][1] = ResultCode.LEFT_ROI
    rows["fitResults"]["x0"][2] = np.nan
    rows["fitError"]["x0"][3] = 30661.0
    rows["fitError"]["x0"][4] = rows["fitError"]["y0"][4] = -5000.0

    picture = render([rows], FIELD, pixel_nm=20, mode="histogram")

    assert (picture.shown, picture.hidden) == (2, 4)
    assert picture.image.sum() == 2


def test_rows_outside_the_field_are_cut_off_and_not_wrapped(one_row: Callable[..., np.ndarray]) -> None:
    rows = np.concatenate([one_row(-51.0, 1000.0), one_row(1e7, 1e7), one_row(-1e9, 5)])

    gaussian = render([rows], FIELD, pixel_nm=10).image
    histogram = render([rows], FIELD, pixel_nm=10, mode="histogram").image

    assert gaussian.sum() == pytest.approx(0.46, abs=0.02)
    assert gaussian[:, 100:].sum() == 0
    assert histogram.sum() == 0


def test_the_field_is_the_cameras_or_else_what_the_rows_span(
    make_rows: MakeRows, metadata: dict[str, Any], one_row: Callable[..., np.ndarray]
) -> None:
    assert field_of(metadata) == FIELD

    spanned = field_of({}, [one_row(10, 20), make_rows(0), one_row(500, 300)])
    assert (spanned.x0_nm, spanned.y0_nm, spanned.x1_nm, spanned.y1_nm) == (10, 20, 501, 301)
    with pytest.raises(Invalid, match="field of view is not known"):
        field_of({}, [make_rows(0)])


def test_a_picture_too_large_for_memory_is_refused_with_what_would_do() -> None:
    with pytest.raises(Invalid, match=r"pixel_nm must be at least 0\.5") as caught:
        render([], FIELD, pixel_nm=0.1)
    assert caught.value.facts["field"] == "pixel_nm"
    with pytest.raises(Invalid, match="must be positive"):
        render([], FIELD, pixel_nm=0)


def test_the_usual_pixel_is_10_nm_unless_the_field_is_huge() -> None:
    assert finest_pixel_nm(FIELD) == 10
    assert finest_pixel_nm(Field.of_frame(2048, 2048, 100, 100)) == 50
    assert [nice_above(v) for v in (0.03, 1, 1.1, 5.1)] == pytest.approx([0.05, 1, 2, 10])


def test_the_colour_map_grows_lighter_step_by_step() -> None:
    lightness = colours().astype(float) @ (0.2126, 0.7152, 0.0722)

    assert colours().shape == (256, 3)
    assert (np.diff(lightness) > -0.5).all()
    assert lightness[-1] > 240
    assert lightness[0] < 5


def test_a_png_is_a_colour_picture_with_a_scale_bar(make_rows: MakeRows) -> None:
    picture = render([make_rows(50)], FIELD, pixel_nm=10)

    with_bar = Image.open(io.BytesIO(png(picture)))
    without = Image.open(io.BytesIO(png(picture, scale_bar=False)))

    assert (with_bar.size, with_bar.mode, with_bar.info["pixel_nm"]) == ((640, 480), "RGB", "10")
    white = (np.asarray(with_bar) == 255).all(axis=2) & ~(np.asarray(without) == 255).all(axis=2)
    # the longest white line is 1 µm long: 100 pixels and the end
    assert max(white.sum(axis=1)) == 101


def test_an_empty_picture_is_black_and_no_error() -> None:
    picture = render([], FIELD, pixel_nm=100)

    assert np.asarray(Image.open(io.BytesIO(png(picture, scale_bar=False)))).max() < 10


def test_a_tiff_keeps_counts_and_the_size_of_a_pixel(tmp_path: Path, make_rows: MakeRows) -> None:
    picture = render([make_rows(500)], FIELD, pixel_nm=50, mode="histogram")

    save_tiff(picture, tmp_path / "p.tif")

    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert file.asarray().dtype == np.uint16
        assert np.array_equal(file.asarray(), picture.image)
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["unit"], numerator / denominator) == ("um", 20)


def test_a_tiff_of_gaussians_says_its_scale(tmp_path: Path) -> None:
    picture = Picture(np.array([[0.0, 0.25], [0.5, 1.5]], np.float32), 10.0, 3, 0)

    save_tiff(picture, tmp_path / "p.tif")

    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        assert file.imagej_metadata is not None
        scale = float(file.imagej_metadata["Info"].split("=")[1].split()[0])
        assert np.allclose(file.asarray() * scale, picture.image, atol=2e-5)


def test_what_the_camera_saw_goes_beside(make_rows: MakeRows) -> None:
    picture = render([make_rows(50)], FIELD, pixel_nm=10)
    frame = np.zeros((48, 64))
    frame[10, 10] = 100

    both = np.asarray(Image.open(io.BytesIO(before_and_after(frame, picture))))

    assert both.shape == (480, 2 * 640 + 6, 3)
    assert np.argwhere(both[:, :640].max(axis=2) > 200).min(axis=0).tolist() == [100, 100]


def test_a_results_file_becomes_a_picture(
    tmp_path: Path, make_rows: MakeRows, make_provenance: Callable[..., Provenance], metadata: dict[str, Any]
) -> None:
    rows = make_rows(100)
    with Writer(tmp_path / "s.h5r", rows.dtype, metadata) as writer:
        writer.append(rows)
        source = writer.finish(make_provenance())

    assert render_file(source, tmp_path / "s.png").image.shape == (480, 640)
    assert render_file(source, tmp_path / "s.tif", look=Look(20, "histogram")).image.sum() > 90
    with pytest.raises(Conflict):
        render_file(source, tmp_path / "s.png")
    with pytest.raises(Invalid, match=r"\.png, \.tif"):
        render_file(source, tmp_path / "s.bmp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5r", "s.png", "s.tif"]


def test_a_region_is_drawn_as_that_part_of_the_whole(make_rows: MakeRows, tmp_path: Path) -> None:
    rows = make_rows(300)

    whole = render([rows], FIELD, pixel_nm=10)
    part = render([rows], Field.parse("950,1450,2950,2450"), pixel_nm=10)

    np.testing.assert_allclose(part.image, whole.image[150:250, 100:300], atol=1e-5)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,x,4", "5,5,5,9", "9,9,1,1", "0,0,inf,1", "nan,0,1,1"])
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="region"):
        Field.parse(text)


@pytest.mark.parametrize("mode", ["gaussian", "histogram"])
def test_a_pixel_has_the_mean_colour_of_what_is_in_it(one_row: Callable[..., np.ndarray], mode: Any) -> None:
    early, late = one_row(1000.0, 1000.0), one_row(3000.0, 1000.0)
    both = one_row(2000.0, 3000.0), one_row(2000.0, 3000.0)
    late["tIndex"], both[1]["tIndex"] = 100, 100
    tint = Tint("frame", 0, 100)

    picture = render([early, late, *both], FIELD, pixel_nm=20, mode=mode, tint=tint)

    assert picture.light is not None
    first, last = tint.colours_of(early)[0], tint.colours_of(late)[0]
    for x_nm, y_nm, colour in [(1000, 1000, first), (3000, 1000, last), (2000, 3000, (first + last) / 2)]:
        at = (int((y_nm + 50) / 20), int((x_nm + 50) / 20))
        np.testing.assert_allclose(picture.light[:, *at] / picture.image[at], colour, rtol=1e-4)


def test_the_colours_span_the_frames_there_are_or_what_is_given(make_rows: MakeRows) -> None:
    rows = make_rows(50)
    rows["tIndex"] = np.arange(50) + 7

    assert tint_of("frame", [rows[:20], rows[20:]]) == Tint("frame", 7, 56)
    assert tint_of("frame", [rows], (0, 10)) == Tint("frame", 0, 10)
    with pytest.raises(Invalid, match="no z"):
        tint_of("z", [rows])
    with pytest.raises(Invalid, match="no localisations"):
        tint_of("frame", [rows[:0]])
    with pytest.raises(Invalid, match="larger"):
        tint_of("frame", [rows], (5, 5))


def test_white_and_gamma_say_how_bright_a_pixel_is() -> None:
    image = np.array([[0.0, 1.0, 4.0, 16.0]], np.float32)

    assert Tones(gamma=0.5, white=16.0).of(image).tolist() == [[0.0, 0.25, 0.5, 1.0]]
    assert Tones(gamma=1.0, white=4.0).of(image).tolist() == [[0.0, 0.25, 1.0, 1.0]]
    assert Tones(gamma=1.0, brightest=0.5).of(image).tolist() == [[0.0, 0.25, 1.0, 1.0]]
    for wrong in ({"gamma": 0}, {"brightest": 0}, {"white": -1}):
        with pytest.raises(Invalid):
            Tones(**wrong)  # type: ignore[arg-type]


def test_a_tiff_takes_no_colours(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="counts to measure in"):
        render_file(tmp_path / "s.h5r", tmp_path / "s.tif", look=Look(colour_by="frame"))


def test_a_region_where_nothing_lies_is_refused_with_the_field_that_there_is() -> None:
    assert FIELD.part(Field.parse("-500,-500,100,100")) == Field(-500, -500, 100, 100)
    assert FIELD.part(None) == FIELD
    for nowhere in ("900000,0,950000,100", "0,900000,100,950000", "-900,0,-800,100"):
        with pytest.raises(Invalid, match="the field is -50,-50,6350,4750 nm"):
            FIELD.part(Field.parse(nowhere))


def test_a_range_of_colours_needs_something_to_colour_by() -> None:
    with pytest.raises(Invalid, match="without colour_by"):
        Look(colour_range=(0, 5))
