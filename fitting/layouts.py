"""Layouts of the rows of every fit: PYME's own, byte for byte, with what a fit knows beyond them appended.

Import-light on purpose (standard library and numpy). `tIndex` and `fitResults` with `x0` and `y0` are in all of them; nearly all have
`fitError`, of the same columns, and `resultCode`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fitting.localisations import SLICE_DTYPE

Layout = np.dtype[np.void]
Fields = Sequence[tuple[str, object]]


def group(*names: str) -> Layout:
    """A group of float32 columns."""
    return np.dtype([(name, "<f4") for name in names])


def slices(*names: str) -> Layout:
    """The pixels that a fit used, along each of some axes."""
    return np.dtype([(name, SLICE_DTYPE) for name in names])


def layout(parameters: Sequence[str], fields: Fields) -> Layout:
    """A row: `tIndex`, then the fields given; in place of a type, "P" stands for the group of the parameters.

    Parameters
    ----------
    parameters : sequence of str
        Columns of `fitResults`, `fitError` and `startParams`.
    fields : sequence of (str, type)
    """
    columns = group(*parameters)
    return np.dtype([("tIndex", "<i4"), *((name, columns if kind == "P" else kind) for name, kind in fields)])


_XYZ = slices("x", "y", "z")
_BOTH = group("g", "r")

_ASTIGMATIC_PARAMETERS = ("A", "x0", "y0", "sigmax", "sigmay", "background", "bx", "by")
_GPU_PARAMETERS = ("y0", "x0", "A", "background", "sigmay", "sigmax")
_COLOUR: Fields = (
    ("species", "<i4"),
    ("speciesMargin", "<f4"),
    ("gFraction", "<f4"),
    ("gFractionError", "<f4"),
)


def astigmatic(settings: Mapping[str, object]) -> Layout:
    """A row of AstigGaussFitFR: z0 is there if it is fitted."""
    return layout(
        (*_ASTIGMATIC_PARAMETERS, *_z(settings)),
        [
            ("fitResults", "P"), ("fitError", "P"), ("startParams", "P"), ("resultCode", "<i4"), ("slicesUsed", _XYZ),
            ("subtractedBackground", "<f4"),
        ],
    )  # fmt: skip


def astigmatic_gpu(settings: Mapping[str, object]) -> Layout:
    """A row of AstigGaussGPUFitFR: z0 is there if it is fitted."""
    return layout(
        (*_GPU_PARAMETERS, *_z(settings)),
        [("fitResults", "P"), ("fitError", "P"), ("resultCode", "<i4"), ("LLH", "<f4"), ("nFit", "<i4")],
    )


def _z(settings: Mapping[str, object]) -> tuple[str, ...]:
    return ("z0",) if fits_z(settings) else ()


def fits_z(settings: Mapping[str, object]) -> bool:
    """Whether an astigmatic fit gives z."""
    options = settings.get("options")
    wanted = options.get("z") if isinstance(options, Mapping) else None
    return settings.get("sigma_curves") is not None and wanted != "none"


def measured(_settings: Mapping[str, object]) -> Layout:
    """A row of InterpFitR."""
    return layout(
        ("A", "x0", "y0", "z0", "background"),
        [
            ("fitResults", "P"), ("fitError", "P"), ("resultCode", "<i4"), ("slicesUsed", _XYZ), ("startParams", "P"),
            ("nchi2", "<f4"), ("subtractedBackground", "<f4"),
        ],
    )  # fmt: skip


def two_channel(settings: Mapping[str, object]) -> Layout:
    """A row of SplitterFitFNR."""
    return layout(
        ("Ag", "Ar", "x0", "y0", "sigma", "bg", "br"),
        [
            ("fitResults", "P"), ("fitError", "P"), ("startParams", "P"), ("subtractedBackground", _BOTH),
            ("sumIntensity", _BOTH), ("nchi2", "<f4"), ("resultCode", "<i4"), ("slicesUsed", slices("x", "y")),
            *_colour(settings),
        ],
    )  # fmt: skip


def two_channel_measured(settings: Mapping[str, object]) -> Layout:
    """A row of SplitterFitInterpNR."""
    return layout(
        ("Ag", "Ar", "x0", "y0", "z0", "bg", "br", "dx", "dy"),
        [
            ("fitResults", "P"), ("fitError", "P"), ("startParams", "P"), ("resultCode", "<i4"),
            ("slicesUsed", slices("x", "y", "x2", "y2")), ("subtractedBackground", _BOTH), ("nchi2", "<f4"),
            *_colour(settings),
        ],
    )  # fmt: skip


def biplane(_settings: Mapping[str, object]) -> Layout:
    """A row of SplitterFitInterpBNR."""
    return layout(
        ("A", "x0", "y0", "z0", "bg", "br", "dx", "dy"),
        [
            ("fitResults", "P"), ("fitError", "P"), ("startParams", "P"), ("resultCode", "<i4"),
            ("slicesUsed", slices("x", "y", "x2", "y2")), ("subtractedBackground", _BOTH), ("ratio", "<f4"), ("nchi2", "<f4"),
        ],
    )  # fmt: skip


def shift_estimate(_settings: Mapping[str, object]) -> Layout:
    """A row of SplitterShiftEstFR."""
    return layout(
        ("Ag", "Ar", "x0", "y0", "sigma", "background_g", "background_r", "dx", "dy"),
        [("fitResults", "P"), ("fitError", "P"), ("resultCode", "<i4"), ("slicesUsed", _XYZ)],
    )


def centroid(_settings: Mapping[str, object]) -> Layout:
    """A row of LatFitCOIR, which knows no errors."""
    return layout(
        ("A", "x0", "y0", "sigxl", "sigxr", "sigyu", "sigyd"), [("fitResults", "P"), ("slicesUsed", _XYZ)]
    )


def several(_settings: Mapping[str, object]) -> Layout:
    """A row of GaussMultifitSR, one an emitter."""
    return layout(
        ("A", "x0", "y0"),
        [
            ("fitResults", "P"), ("fitError", "P"), ("resultCode", "<i4"), ("nChi2", "<f4"), ("nFit", "<i4"),
        ],
    )  # fmt: skip


def linked(settings: Mapping[str, object]) -> Layout:
    """A row of LinkedGaussFitR: a signal and a background for each channel; z0 in place of sigma where z is fitted."""
    return _linked(settings, "z0" if settings.get("sigma_curves") is not None else "sigma")


def linked_measured(settings: Mapping[str, object]) -> Layout:
    """A row of LinkedInterpFitR: as LinkedGaussFitR with z0."""
    return _linked(settings, "z0")


def _linked(settings: Mapping[str, object], shape: str) -> Layout:
    numbers = range(channels_of(settings))
    ratios = one_signal(settings)
    signals = ("A",) if ratios else tuple(f"A{k}" for k in numbers)
    return layout(
        (*signals, "x0", "y0", shape, *(f"background{k}" for k in numbers)),
        [
            ("fitResults", "P"), ("fitError", "P"), ("startParams", "P"), ("resultCode", "<i4"), ("nchi2", "<f4"),
            ("slicesUsed", slices("x", "y")), ("subtractedBackground", group(*(f"c{k}" for k in numbers))),
        ],
    )  # fmt: skip


def channels_of(settings: Mapping[str, object]) -> int:
    """How many channels the settings of the N-channel fit name."""
    options = settings.get("options")
    boxes = options.get("channels") if isinstance(options, Mapping) else None
    if isinstance(boxes, Sequence) and boxes:
        return len(boxes)
    number = options.get("views", 2) if isinstance(options, Mapping) else 2
    return number if isinstance(number, int) else 2


def one_signal(settings: Mapping[str, object]) -> bool:
    """Whether the channels share one signal in fixed ratios."""
    options = settings.get("options")
    return bool(isinstance(options, Mapping) and options.get("ratios"))


def _colour(settings: Mapping[str, object]) -> Fields:
    options = settings.get("options")
    return _COLOUR if isinstance(options, Mapping) and options.get("species") else ()
