"""How processes of ours are started: by this interpreter, and without the current folder among the places that Python imports from."""

from __future__ import annotations

import sys
from typing import Final

# with -m alone Python looks into the current folder first: a folder `fitting` or a file `secrets.py` beside somebody's data would be run
RUN_MODULE: Final = (sys.executable, "-P", "-m")
