"""Characters that are not seen as themselves: a terminal obeys them, or they turn the order of the letters around them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

OBEYED: Final = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"  # inside of [] in a regular expression
_OBEYED: Final = re.compile(f"[{OBEYED}]")
_UNSEEN: Final = re.compile(f"[{OBEYED}\u061c\u200e\u200f\ufeff]")


def escaped(text: str) -> str:
    """Return text on one line in which no terminal finds anything to obey."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _seen(name: str) -> str:
    if found := _UNSEEN.search(name):
        raise ValueError(f"a name cannot hold U+{ord(found[0]):04X}, which nobody sees")
    return name


Name = Annotated[str, Field(max_length=1024), AfterValidator(_seen)]
