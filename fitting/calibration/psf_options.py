"""The options of the PSF calibration: one table, from which the command, a form and the checks come.

Import-light on purpose (standard library and numpy), as `fitting.fits`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from fitting.errors import InvalidSettings
from fitting.parsing import parse
from fitting.settings import Setting

PSF_SETTINGS: tuple[Setting, ...] = (
    Setting(
        "pixel_nm", None, "number", None, "nm", "Size of a pixel in the sample; null: from the file.",
        minimum=1.0, maximum=10_000.0, nullable=True,
    ),
    Setting(
        "step_nm", None, "number", None, "nm", "Distance between planes; null: from the file.",
        minimum=0.1, maximum=10_000.0, nullable=True,
    ),
    Setting(
        "reversed", None, "boolean", False, "", "Turn the stack round: z falls from plane to plane as recorded.",
    ),
    Setting(
        "frames_per_plane", None, "integer", 1, "frames", "So many frames in a row were taken of each plane; they are averaged.",
        minimum=1, maximum=10_000,
    ),
    Setting(
        "half_size", None, "integer", None, "px", "The PSF has side 2h+1; null: 1500 nm to each side.",
        minimum=4, maximum=60, nullable=True,
    ),
    Setting(
        "threshold", None, "number", 8.0, "1", "A bead is brighter than this many times the noise of the band-passed projection.",
        minimum=1.0, maximum=1e6,
    ),
    Setting(
        "least_brightness", None, "number", 0.1, "1", "A bead has at least this share of the brightness of the bright ones.",
        minimum=0.0, maximum=1.0,
    ),
    Setting(
        "isolation_px", None, "number", None, "px", "No other bead may be nearer than this; null: 1.5 times the half size.",
        minimum=0.0, maximum=1000.0, nullable=True,
    ),
    Setting(
        "saturation_adu", None, "number", None, "ADU", "A pixel this bright is saturated; null: found from the data.",
        minimum=1.0, maximum=1e9, nullable=True,
    ),
    Setting(
        "most_beads", None, "integer", 60, "1", "Of more beads than this the brightest are used.", minimum=1, maximum=1000,
    ),
    Setting(
        "bleaching", None, "boolean", True, "", "Take a steady loss of light along the stack out, as an exponential.",
    ),
    Setting(
        "bead_diameter_nm", None, "number", None, "nm", "Diameter of the beads, to be taken out of the PSF; null: leave it in.",
        minimum=1.0, maximum=2000.0, nullable=True,
    ),
    Setting(
        "regularisation", None, "number", 0.01, "1",
        "Noise over signal below which the bead's size is taken out less (Wiener's constant).", minimum=1e-6, maximum=1.0,
    ),
    Setting(
        "blur_px", None, "number", 0.2, "px", "Standard deviation of the blur in x and y; widens the PSF by its square.",
        minimum=0.0, maximum=5.0,
    ),
    Setting(
        "blur_nm", None, "number", 30.0, "nm", "Standard deviation of the blur in z.", minimum=0.0, maximum=1000.0,
    ),
    Setting(
        "width_half_size", None, "integer", None, "px",
        "Widths are fitted, and precision foretold, in a region of side 2h+1; null: 800 nm to each side.",
        minimum=3, maximum=50, nullable=True,
    ),
    Setting(
        "astigmatism", None, "choice", "auto", "", "Whether to make width curves; auto: if the widths tell z.",
        choices=("auto", "yes", "no"),
    ),
    Setting(
        "photons", None, "number", 2000.0, "e⁻", "Photons of a molecule, for weights of width fits and the precision foretold.",
        minimum=10.0, maximum=1e7,
    ),
    Setting(
        "background_photons", None, "number", 20.0, "e⁻/px", "Background under a molecule, for the same.",
        minimum=0.1, maximum=1e6,
    ),
    Setting(
        "channel0", None, "box", None, "px", "[x0, y0, x1, y1] of channel 0 in the frame; null: the whole frame, one channel.",
        minimum=0, maximum=2**20, nullable=True,
    ),
    Setting(
        "channel1", None, "box", None, "px", "[x0, y0, x1, y1] of channel 1, of the same size; null: one channel.",
        minimum=0, maximum=2**20, nullable=True,
    ),
    Setting(
        "flip", "Splitter.Flip", "boolean", True, "", "Channel 1 is mirrored top to bottom, as PYME's splitters are.",
    ),
)  # fmt: skip

_DERIVED_NM = {"half_size": 1500.0, "width_half_size": 800.0}
_LEAST_HALF_SIZE = {"half_size": 6, "width_half_size": 4}
_GREATEST_HALF_SIZE = {"half_size": 30, "width_half_size": 15}


def resolve_psf_options(given: Mapping[str, object]) -> dict[str, Any]:
    """Make given options a complete, checked set; a resolved set resolves to itself.

    Raises
    ------
    InvalidSettings
        If a name is unknown, a value is of the wrong type or out of range, values contradict each other, or the pixel
        size or the step is not known.
    """
    known = {setting.name: setting for setting in PSF_SETTINGS}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the options are {', '.join(known)}"
            raise InvalidSettings(str(name), f"unknown option; {hint}")
    options: dict[str, Any] = {
        name: parse(setting, given.get(name, setting.default)) for name, setting in known.items()
    }
    for name, meaning in (("pixel_nm", "size of a pixel"), ("step_nm", "distance between planes")):
        if options[name] is None:
            raise InvalidSettings(name, f"must be given: the {meaning} in nm is not in the file")
    for name, reach_nm in _DERIVED_NM.items():
        if options[name] is None:
            size = max(_LEAST_HALF_SIZE[name], round(reach_nm / options["pixel_nm"]))
            limits = (_GREATEST_HALF_SIZE[name], options["half_size"] or size)
            options[name] = min(size, *limits)
    if options["isolation_px"] is None:
        options["isolation_px"] = 1.5 * options["half_size"]
    _check(options)
    return options


def _check(options: Mapping[str, Any]) -> None:
    if options["width_half_size"] > options["half_size"]:
        raise InvalidSettings(
            "width_half_size",
            f"{options['width_half_size']} px is larger than half_size, {options['half_size']} px",
        )
    channel0, channel1 = options["channel0"], options["channel1"]
    if channel1 is None:
        return
    if channel0 is None:
        raise InvalidSettings("channel0", "must be given too, where channel1 is")
    sizes = [(box[2] - box[0], box[3] - box[1]) for box in (channel0, channel1)]
    if sizes[0] != sizes[1]:
        raise InvalidSettings(
            "channel1",
            f"is {sizes[1][0]} × {sizes[1][1]} px, channel 0 is {sizes[0][0]} × {sizes[0][1]} px; they must be of one size",
        )
