"""The fits that come with the package: which PSF, how many channels, which rows. What they share is in the functions they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fitting import layouts
from fitting.errors import InvalidSettings
from fitting.fit_types import CALIBRATIONS, GEOMETRY, Fit
from fitting.localisations import LAT_GAUSS_DTYPE
from fitting.settings import Setting

_ALL = CALIBRATIONS | GEOMETRY
_MOST_CHANNELS = 8

_Z = Setting(
    "z", None, "choice", "direct", "",
    'How z is found where sigma_curves are given: "direct" fits it, "lookup" compares the fitted widths with the curves, "none" leaves it out.',
    choices=("direct", "lookup", "none"),
)  # fmt: skip
_SPECIES = Setting(
    "species", None, "numbers", None, "1",
    "Share of each species' light that falls into channel 0; given, every molecule is assigned to the likeliest.",
    minimum=0.0, maximum=1.0, nullable=True,
)  # fmt: skip
_AXIAL_SHIFT = Setting(
    "axial_shift_nm", "Analysis.AxialShift", "number", 0.0, "nm", "What is added to z in channel 1.",
    minimum=-10_000.0, maximum=10_000.0,
)  # fmt: skip
_FIT_SHIFTS = Setting(
    "fit_shifts", "Analysis.FitShifts", "boolean", False, "", "Fit the shift between the channels for each molecule."
)  # fmt: skip
_REFRACTION = Setting(
    "refractive_index_factor", None, "number", 1.0, "1",
    "Distances in the sample over those of the focus with which the PSF was recorded; about 0.8 for oil into water.",
    minimum=0.3, maximum=2.0,
)  # fmt: skip


_LINKED = (
    Setting(
        "channels",
        None,
        "rectangles",
        None,
        "px",
        "[x, y, width, height] of each channel on the chip; null: `views` strips of the frame, side by side along x.",
        minimum=0,
        maximum=2**20,
        nullable=True,
    ),
    Setting(
        "flips", None, "flags", None, "", "Which of the channels are upside down; null: none.", nullable=True
    ),
    Setting(
        "views",
        "Multiview.NumROIs",
        "integer",
        2,
        "",
        "Number of channels, where `channels` does not say.",
        minimum=2,
        maximum=_MOST_CHANNELS,
    ),
    Setting(
        "ratios",
        None,
        "numbers",
        None,
        "1",
        "Share of the light in each channel, where that is known: one signal is fitted then.",
        minimum=0.0,
        maximum=1.0,
        nullable=True,
    ),
    Setting(
        "axial_shifts_nm",
        None,
        "numbers",
        None,
        "nm",
        "What is added to z in each channel; null: nothing.",
        minimum=-10_000.0,
        maximum=10_000.0,
        nullable=True,
    ),
)


def _lat_gauss(_settings: Mapping[str, object]) -> Any:
    return LAT_GAUSS_DTYPE


def check_linked(settings: Mapping[str, Any]) -> None:
    """What the schema of the fits of any number of channels cannot say.

    Raises
    ------
    InvalidSettings
        If lists do not have one entry a channel, or there are too many channels.
    """
    options, number = settings["options"], layouts.channels_of(settings)
    if not 2 <= number <= _MOST_CHANNELS:
        raise InvalidSettings(
            "options.channels", f"there must be 2 to {_MOST_CHANNELS} channels, not {number}"
        )
    for name in ("flips", "ratios", "axial_shifts_nm"):
        if options[name] is not None and len(options[name]) != number:
            raise InvalidSettings(
                f"options.{name}",
                f"has {len(options[name])} entries for {number} channels; it needs one for each",
            )
    if options["ratios"] is not None and not sum(options["ratios"]) > 0:
        raise InvalidSettings("options.ratios", "are all 0")
    if isinstance(settings["shifts"], list) and len(settings["shifts"]) != number - 1:
        raise InvalidSettings(
            "shifts",
            f"are {len(settings['shifts'])} fields for {number} channels; each after the first needs one",
        )


FITS: tuple[Fit, ...] = (
    Fit(
        name="LatGaussFitFR",
        aliases=("gaussian", "gauss", "2d", "LatGauss", "LatGaussFit"),
        title="2D Gaussian",
        description="One round Gaussian of free width for each molecule, on a background.",
        layout=_lat_gauss,
        run="fitting.gaussian_fit:fit",
        estimators=("mle", "wls"),
        neighbours=True,
    ),
    Fit(
        name="AstigGaussFitFR",
        aliases=("astigmatic", "astig", "AstigGauss", "elliptical"),
        title="Astigmatic Gaussian",
        description="One Gaussian for each molecule with a width along x and one along y; z too, where sigma_curves are given.",
        layout=layouts.astigmatic,
        run="fitting.astigmatic_fit:fit",
        unused=_ALL - {"sigma_curves"},
        options=(_Z,),
        roi_widths=4.5,
    ),
    Fit(
        name="AstigGaussGPUFitFR",
        aliases=("AstigGaussGPU", "gpu"),
        title="Astigmatic Gaussian, in the columns of PYME's GPU fit",
        description="The fit of AstigGaussFitFR, without a GPU; A and background are photo-electrons here.",
        layout=layouts.astigmatic_gpu,
        run="fitting.astigmatic_fit:fit",
        unused=_ALL - {"sigma_curves"},
        options=(_Z,),
        roi_widths=4.5,
    ),
    Fit(
        name="InterpFitR",
        aliases=("spline", "interp", "3d", "InterpFit"),
        title="Measured PSF",
        description="A PSF measured with beads, interpolated by a cubic spline: x, y, z, signal and background of each molecule.",
        layout=layouts.measured,
        run="fitting.measured_fit:fit",
        unused=_ALL - {"psf", "interpolator"},
        needs=("psf",),
        options=(_REFRACTION,),
        roi_widths=4.5,
    ),
    Fit(
        name="SplitterFitFNR",
        aliases=("two-colour", "two-color", "splitter", "ratiometric", "SplitterFit"),
        title="Two channels, 2D Gaussian",
        description="One round Gaussian at one place in two channels, with a signal and a background in each: the colour is their ratio.",
        layout=layouts.two_channel,
        run="fitting.splitter_fit:fit_colours",
        unused=frozenset({"psf", "interpolator", "sigma_curves"}),
        options=(_SPECIES,),
        channels=2,
        roi_widths=2.8,
    ),
    Fit(
        name="SplitterFitInterpNR",
        aliases=("two-colour-3d", "two-color-3d", "SplitterFitInterp"),
        title="Two channels, measured PSF",
        description="A measured PSF at one place in two channels, with a signal and a background in each.",
        layout=layouts.two_channel_measured,
        run="fitting.measured_fit:fit_colours",
        unused=frozenset({"sigma_curves"}),
        needs=("psf",),
        options=(_AXIAL_SHIFT, _FIT_SHIFTS, _SPECIES, _REFRACTION),
        channels=2,
        roi_widths=4.5,
    ),
    Fit(
        name="SplitterFitInterpBNR",
        aliases=("biplane", "SplitterFitInterpB"),
        title="Biplane, measured PSF",
        description="A measured PSF at one place in two planes of focus, which share the light in a known ratio.",
        layout=layouts.biplane,
        run="fitting.measured_fit:fit_biplane",
        unused=frozenset({"sigma_curves"}),
        needs=("psf",),
        options=(
            _AXIAL_SHIFT,
            _FIT_SHIFTS,
            Setting(
                "ratios", "chroma.ChannelRatios", "numbers", [0.7], "1",
                "Shares of the light in channel 0 to try; the likeliest is kept.", minimum=0.0, maximum=1.0,
            ),
            _REFRACTION,
        ),
        channels=2,
        roi_widths=4.5,
    ),
    Fit(
        name="SplitterShiftEstFR",
        aliases=("shifts", "shift-estimate", "SplitterShiftEst"),
        title="Shift between two channels, on beads",
        description="One round Gaussian in each of two channels, with a shift between them: what a shift field is made from.",
        layout=layouts.shift_estimate,
        run="fitting.splitter_fit:fit_shift",
        unused=frozenset({"psf", "interpolator", "sigma_curves"}),
        defaults={"background": None, "threshold": 2.0},
        channels=2,
        roi_widths=4.5,
    ),
    Fit(
        name="GaussMultifitSR",
        aliases=("multi-emitter", "multi", "multifit", "GaussMultifit", "high-density"),
        title="2D Gaussian, several molecules in one place",
        description="Round Gaussians of the expected width, as many in a place as the likelihood asks for.",
        layout=layouts.several,
        run="fitting.multi_fit:fit",
        options=(
            Setting(
                "most_emitters", None, "integer", 30, "", "Molecules that are fitted together at most.", minimum=1, maximum=100
            ),
            Setting(
                "least_gain", None, "number", 16.0, "1",
                "What a molecule must add to twice the logarithm of the likelihood to be accepted.", minimum=1.0, maximum=1e6,
            ),
            Setting(
                "width", None, "choice", "frame", "",
                "Width of the PSF: frame, that of the frame's lone molecules; place, one fitted in each place; given, psf_sigma_nm, which must then be right to a few percent.",
                choices=("frame", "place", "given"),
            ),
        ),
        neighbours=True,
    ),
    Fit(
        name="LatFitCOIR",
        aliases=("centroid", "centre-of-intensity", "LatFitCOI"),
        title="Centroid",
        description="Centre of the light above the background, for a first look: fast, biased, and without errors.",
        layout=layouts.centroid,
        run="fitting.centroid_fit:fit",
        unused=_ALL | {"estimator"},
    ),
    Fit(
        name="LinkedGaussFitR",
        aliases=("linked", "multi-channel", "multiview"),
        title="Any number of channels, Gaussian",
        description="One Gaussian at one place in all channels; z too, where sigma_curves are given; one signal, where ratios are.",
        layout=layouts.linked,
        run="fitting.splitter_fit:fit_linked",
        unused=frozenset({"psf", "interpolator", *GEOMETRY}),
        options=_LINKED,
        channels=0,
        roi_widths=4.5,
        check="fitting.catalogue:check_linked",
    ),
    Fit(
        name="LinkedInterpFitR",
        aliases=("linked-3d", "multi-channel-3d"),
        title="Any number of channels, measured PSF",
        description="A measured PSF at one place in all channels, each in its own plane of focus; one signal, where ratios are given.",
        layout=layouts.linked_measured,
        run="fitting.measured_fit:fit_linked",
        unused=frozenset({"sigma_curves", *GEOMETRY}),
        needs=("psf",),
        options=(*_LINKED, _REFRACTION),
        channels=0,
        roi_widths=4.5,
        check="fitting.catalogue:check_linked",
    ),
)  # fmt: skip
