"""The settings of an analysis: names, units, ranges.

`SETTINGS` is the one table; the command line, the REST schema and the fits read it. How a given value becomes a valid one is in
`fitting.parsing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SettingType = Literal[
    "fit",
    "number",
    "integer",
    "boolean",
    "choice",
    "text",
    "start",
    "window",
    "fraction",
    "box",
    "rectangle",
    "rectangles",
    "numbers",
    "flags",
    "map",
    "psf",
    "curves",
    "field",
    "options",
]

LONGEST_WINDOW = 10_000
"""[frames] that a background may reach."""
_INTERPOLATORS = {
    "csinterpolator": "cubic", "cubicspline": "cubic", "cubesinterpolatorp": "cubic",
    "linearinterpolator": "linear", "linearpinterpolator": "linear", "linear_interp": "linear",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One setting of an analysis.

    Attributes
    ----------
    name : str
        Its name in `analysis`.
    pyme_key : str or None
        The metadata key by which PYME knows it.
    type : SettingType
        What a value looks like.
    default : object
        Value when nothing is given; None may also mean "derived from others".
    unit : str
        Unit of the value, "1" for a plain number, "" where there is none.
    minimum, maximum : float or None
        Inclusive limits of a number.
    choices : tuple of str
        The allowed words, empty when anything goes.
    description : str
        One sentence for a person.
    nullable : bool
        Whether null is a value.
    synonyms : mapping of str to str
        Other words for a choice, in lower case.
    """

    name: str
    pyme_key: str | None
    type: SettingType
    default: object
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    nullable: bool = False
    synonyms: Mapping[str, str] = field(default_factory=dict, hash=False)


SETTINGS: tuple[Setting, ...] = (
    Setting("fit", "Analysis.FitModule", "fit", "LatGaussFitFR", "", "Type of fit; PYME's names and aliases."),
    Setting(
        "threshold", "Analysis.DetectionThreshold", "number", 1.0, "1",
        "Factor on the local signal-to-noise threshold of detection; 1.0 means what it means in PYME.",
        minimum=0.01, maximum=1000.0,
    ),
    Setting(
        "start_at", "Analysis.StartAt", "start", "auto", "frames",
        'First frame to localise; "auto": where the metadata say that data start, else 0.',
        minimum=0, maximum=2**31 - 1,
    ),
    Setting(
        "stop_at", None, "integer", None, "frames", "Frame after the last one to localise; null: the end.",
        minimum=1, maximum=2**31 - 1, nullable=True,
    ),
    Setting(
        "roi", None, "box", None, "px",
        "[x0, y0, x1, y1]: localise this part of the frame only; coordinates stay those of the full frame.",
        minimum=0, maximum=2**20, nullable=True,
    ),
    Setting(
        "background", "Analysis.BGRange", "window", "-30:0", "frames",
        'Frames that make the background, as a slice relative to the frame; "0:0" or null: none.',
        minimum=-LONGEST_WINDOW, maximum=LONGEST_WINDOW, nullable=True,
    ),
    Setting(
        "background_percentile", "Analysis.PCTBackground", "fraction", 0.25, "1",
        "Which percentile of the background frames is the background, as a fraction (0.25: the lower quartile), renewed "
        "every tenth frame; 0 or null: their mean, twice as fast, but with the traces of molecules that shone lately.",
        minimum=0.0, maximum=1.0, nullable=True,
    ),
    Setting(
        "subtract_background", "Analysis.subtractBackground", "boolean", True, "",
        "Use the background in the fit too, not only in detection.",
    ),
    Setting(
        "debounce_radius", "Analysis.DebounceRadius", "number", 4.0, "px",
        "Of candidates closer than this only the brightest is fitted.", minimum=0.0, maximum=1000.0,
    ),
    Setting(
        "roi_half_size", "Analysis.ROISize", "integer", None, "px",
        "The region of a fit has side 2h+1; null: from the expected width of the PSF.",
        minimum=1, maximum=50, nullable=True,
    ),
    Setting(
        "psf_sigma_nm", "Analysis.PSFSigmaGuess", "number", 250 / 2.35, "nm",
        "Expected standard deviation of the PSF: start value, detection and size of the region.",
        minimum=1.0, maximum=10_000.0,
    ),
    Setting(
        "lowpass_sigma", "Analysis.DetectionRadiusLowpass", "number", 1.0, "px",
        "Width of the smoothing filter of detection.", minimum=0.1, maximum=50.0,
    ),
    Setting(
        "highpass_sigma", "Analysis.DetectionRadiusHighpass", "number", 3.0, "px",
        "Width of the filter that removes what is wider than a molecule.", minimum=0.2, maximum=200.0,
    ),
    Setting(
        "estimator", None, "choice", "mle", "",
        '"mle": maximum likelihood (Poisson, sCMOS, EMCCD); "wls": weighted least squares as PYME\'s.',
        choices=("mle", "wls"),
    ),
    Setting("variance_map", "Camera.VarianceMapID", "map", None, "e⁻²", "Read-noise variance of each pixel.", nullable=True),
    Setting("dark_map", "Camera.DarkMapID", "map", None, "ADU", "Offset of each pixel in the dark.", nullable=True),
    Setting(
        "flatfield_map", "Camera.FlatfieldMapID", "map", None, "1",
        "Factor that evens out the pixels' gain, mean 1.", nullable=True,
    ),
    Setting("psf", "PSFFile", "psf", None, "", "Measured PSF for the interpolating fits, a stack with its pitches.", nullable=True),
    Setting(
        "interpolator", "Analysis.InterpModule", "choice", None, "", "How the measured PSF is interpolated; null: cubic.",
        choices=("cubic", "linear"), nullable=True, synonyms=_INTERPOLATORS,
    ),
    Setting(
        "sigma_curves", None, "curves", None, "nm",
        "Widths of an astigmatic PSF against z, for the fits that take z from them.", nullable=True,
    ),
    Setting(
        "shifts", "chroma.ShiftFilename", "field", None, "nm",
        "Shift field: how far each further channel's image lies from that in channel 0.", nullable=True,
    ),
    Setting(
        "channel0_roi", "Splitter.Channel0ROI", "rectangle", None, "px",
        "[x, y, width, height] of channel 0 on the chip; null: the upper half.", minimum=0, maximum=2**20, nullable=True,
    ),
    Setting(
        "channel1_roi", "Splitter.Channel1ROI", "rectangle", None, "px",
        "[x, y, width, height] of channel 1 on the chip; null: the lower half.", minimum=0, maximum=2**20, nullable=True,
    ),
    Setting("flip", "Splitter.Flip", "boolean", True, "", "Channel 1 is channel 0 upside down."),
    Setting(
        "track_fiducials", "Analysis.TrackFiducials", "boolean", False, "",
        "Fit fiducial markers too, into DriftResults.",
    ),
    Setting(
        "fiducial_threshold", "Analysis.FiducialThreshold", "number", 1.8, "1",
        "Detection threshold of fiducials.", minimum=0.01, maximum=1000.0,
    ),
    Setting(
        "fiducial_diameter_nm", "Analysis.FiducialSize", "number", 1000.0, "nm",
        "Diameter of the fiducials.", minimum=1.0, maximum=100_000.0,
    ),
    Setting(
        "fiducial_roi_half_size", "Analysis.FiducialROISize", "integer", 11, "px",
        "The region of a fiducial's fit has side 2h+1.", minimum=1, maximum=50,
    ),
    Setting(
        "idle_limit_s", None, "number", 600.0, "s",
        "A followed series that stops growing for this long ends the job as incomplete.",
        minimum=1.0, maximum=2_592_000.0,
    ),
    Setting(
        "rest_s", None, "number", 30.0, "s",
        "A followed series of which nothing says how long it will be is whole when it has not grown for this long.",
        minimum=1.0, maximum=2_592_000.0,
    ),
    Setting("options", None, "options", {}, "", "The fit type's own settings."),
)  # fmt: skip

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
BY_KEY: dict[str, Setting] = {setting.pyme_key: setting for setting in SETTINGS if setting.pyme_key}
