"""What the manual of calibrations says is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from fitting.calibration.psf_options import PSF_SETTINGS

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "calibration.md"


def test_the_manual_lists_every_option_of_the_psf_with_its_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| [^|]* \| (.*) \|$", MANUAL.read_text("utf-8"), re.MULTILINE)

    assert rows == [(setting.name, setting.description) for setting in PSF_SETTINGS]
