from __future__ import annotations

import subprocess
import sys

import pytest

CODE = "import sys, {module}; print(sorted(name for name in ('numba', 'scipy', 'llvmlite') if name in sys.modules))"


@pytest.mark.parametrize("module", ["fitting", "fitting.fits", "fitting.errors", "fitting.localisations"])
def test_what_only_names_and_checks_loads_no_compiler(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.strip() == "[]"


def test_the_package_offers_its_functions_by_name() -> None:
    import fitting

    assert {name for name in fitting.__all__ if callable(getattr(fitting, name))} == set(fitting.__all__)
    with pytest.raises(AttributeError, match="localize"):
        fitting.localize  # noqa: B018
