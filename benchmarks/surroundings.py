"""What the figures of a benchmark of our own code were measured on, for its JSON line."""

from __future__ import annotations

import os
import platform
from typing import Any

import numba
import numpy as np
from llvmlite import binding


def surroundings() -> dict[str, Any]:
    """Machine and versions; `target` is the processor that kernels are compiled for."""
    return {
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "target": str(binding.get_host_cpu_name()),
        },
        "versions": {
            "python": platform.python_version(),
            "numba": numba.__version__,
            "numpy": np.__version__,
        },
    }
