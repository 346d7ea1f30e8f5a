"""Characters that are not seen as themselves: a terminal obeys them, or they turn the order of the letters around them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

OBEYED: Final = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"  # inside of [] in a regular expression
_OBEYED: Final = re.compile(f"[{OBEYED}]")
_UNSEEN: Final = re.compile(f"[{OBEYED}\u061c\u200e\u200f\ufeff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONGEST_NAME: Final = 1024  # characters


def escaped(text: str) -> str:
    """Return text on one line in which no terminal finds anything to obey."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def fault_of_unseen(name: str) -> str | None:
    """Return which character of a name nobody sees, and what to do, in words, or None."""
    if found := _UNSEEN.search(name):
        return f"a name cannot hold the character U+{ord(found[0]):04X}, which nobody sees; leave it out"
    return None


def seen_name(text: str) -> str:
    """Return what is seen of a file's or a user's name: always a `Name`, and never an empty one.

    What nobody sees is left out; bytes that are no text become U+FFFD.
    """
    seen = _SURROGATE.sub("\ufffd", _UNSEEN.sub("", text))[:_LONGEST_NAME]
    return seen if seen.strip() else "unnamed"


def _checked(name: str) -> str:
    if fault := fault_of_unseen(name):
        raise ValueError(fault)
    return name


Name = Annotated[str, Field(max_length=_LONGEST_NAME), AfterValidator(_checked)]
