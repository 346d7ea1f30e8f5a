"""What can be wrong with what a caller hands to `fitting`.

FittingError
├── InvalidSettings   a setting that is unknown, of the wrong type or out of range
├── InvalidMetadata   metadata keys that are missing or make no sense
├── InvalidFrames     the pixels themselves: shape, type, missing context
└── InvalidCalibration  measurements from which a calibration cannot be made

A fit that does not converge is data, not an error: its row has a result code, and what is unknown is NaN.
"""

from __future__ import annotations


class FittingError(Exception):
    """Anything that is wrong with the input; `str(error)` is a sentence for a person."""


class InvalidSettings(FittingError):
    """One setting cannot be used; `field` is its name.

    Parameters
    ----------
    field : str
        Name of the setting, as in the table of settings; the name as given when there is no such setting.
    reason : str
        What is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class InvalidMetadata(FittingError):
    """Metadata are missing or out of range; `keys` are the keys concerned.

    Parameters
    ----------
    keys : tuple of str
        The metadata keys, with PYME's names.
    reason : str
        A sentence that names them.
    """

    def __init__(self, keys: tuple[str, ...], reason: str) -> None:
        super().__init__(keys, reason)
        self.keys = keys
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class InvalidFrames(FittingError):
    """Frames of a shape or type that cannot be localised, or without the context they need."""


class InvalidCalibration(FittingError):
    """Measurements from which a calibration cannot be made: too few, or contradicting each other."""
