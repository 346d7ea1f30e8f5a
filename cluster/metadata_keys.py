"""The metadata keys that a job may give: a misspelt one must not be silently without effect.

Keys that come from a file are kept as they are. Groups that describe the sample or the run are anybody's to fill.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from cluster.errors import Invalid
from fitting.fits import OPTION_KEYS, SETTINGS

_CAMERA: Final = [
    "ADOffset",
    "ElectronsPerCount",
    "TrueEMGain",
    "EMGain",
    "NoiseFactor",
    "ReadNoise",
    "VarianceMapID",
    "DarkMapID",
    "FlatfieldMapID",
    "BitDepth",
    "ROIOriginX",
    "ROIOriginY",
    "ROIPosX",
    "ROIPosY",
    "ROIWidth",
    "ROIHeight",
    "SensorWidth",
    "SensorHeight",
    "SerialNumber",
    "IntegrationTime",
    "CycleTime",
    "Name",
    "Model",
    "StartCCDTemp",
]
_PROTOCOL: Final = [
    "DataStartsAt",
    "DarkFrameRange",
    "PrebleachFrames",
    "BleachFrames",
    "Filename",
    "PiezoStartPos",
]
_SPLITTER: Final = ["Channel0ROI", "Channel1ROI", "Flip", "Dichroic", "TransmittedPathPosition", "Ratios"]
KNOWN: Final = frozenset(
    [f"Camera.{name}" for name in _CAMERA]
    + [f"Protocol.{name}" for name in _PROTOCOL]
    + [f"Splitter.{name}" for name in _SPLITTER]
    + [f"voxelsize.{name}" for name in ("x", "y", "z", "units")]
    + [setting.pyme_key for setting in SETTINGS if setting.pyme_key]
    + list(OPTION_KEYS)
    + [
        "EstimatedLaserOnFrameNo",
        "StartTime",
        "EndTime",
        "PSFFile",
        "imageID",
        "AcquiringUser",
        "DimOrder",
        "SizeC",
        "SizeZ",
        "SizeT",
        "tIndex",
    ]
)
FREE_GROUPS: Final = (
    "Sample.",
    "User.",
    "Simulation.",
    "Positioning.",
    "StackSettings.",
    "Multiview.",
    "chroma.",
)


def check_known(keys: Iterable[str]) -> None:
    """Refuse keys that nobody reads; raises `Invalid` naming the first, and what may have been meant."""
    for key in keys:
        if key in KNOWN or key.startswith(FREE_GROUPS):
            continue
        near = difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.6)
        meant = (
            f"; did you mean {near[0]}?" if near else f"; free text goes under {', '.join(FREE_GROUPS[:2])}"
        )
        raise Invalid(f"metadata: {key} is unknown{meant}", field=key)
