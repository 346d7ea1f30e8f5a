"""How every compiled function of this package is compiled.

``device`` marks a small function that is inlined into others, ``borrower`` one that allocates nothing and therefore counts no references; ``inlined`` a part of one other function; ``provides`` one of several, of which the type of the first argument
chooses while a kernel is compiled; ``kernel`` marks an entry: it releases the GIL and its machine code is kept on
disk. Numba notices a change of the file that holds an entry, but not of the files it inlines, so the folder of the
kept code carries a digest of the package's source: an upgraded package never runs stale code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numba
from numba.extending import overload
from numba.misc.appdirs import user_cache_dir

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_BORROWING: dict[str, Any] = {**_OPTIONS, "_nrt": False}
_FOR_KERNELS_ONLY: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _source_digest() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


_DIGEST = _source_digest()


def device(function: _Function) -> _Function:
    """Compile a function that kernels inline."""
    compiled: _Function = numba.njit(**_FOR_KERNELS_ONLY, **_OPTIONS)(function)
    return compiled


def borrower(function: _Function) -> _Function:
    """Compile a function that kernels inline and that allocates nothing.

    References to arrays in tuples that it takes apart are not counted then, which would take longer than the small sums it makes.
    """
    compiled: _Function = numba.njit(**_FOR_KERNELS_ONLY, **_BORROWING)(function)
    return compiled


def inlined(function: _Function) -> _Function:
    """Have a function that is called in one place written into its caller, before either is compiled.

    Others are optimised, and made machine code of, by themselves first and once more in whoever calls them, level by level. Worth it for the
    small and for what only hands on; a caller that becomes very large takes longer again, as numba's passes grow faster than a function.
    Not for sums that two places must round alike, as rows of P with the background's sum moved or not: each caller may fuse them in its own way.
    """
    written: _Function = numba.njit(inline="always", **_FOR_KERNELS_ONLY, **_OPTIONS)(function)
    return written


def only_in_kernels(*_: Any) -> NoReturn:
    """Be the body of an operation whose functions `provides` names: numba takes one of those, Python has none."""
    raise NotImplementedError("this operation exists in compiled kernels only")


def provides(operation: Callable[..., Any], kind: type) -> Callable[[_Function], _Function]:
    """Make the function what `operation` does in kernels where its first argument is a `kind`, a NamedTuple.

    It must not allocate; see `borrower`.
    """

    def register(function: _Function) -> _Function:
        def choose(first: Any, *_: Any) -> _Function | None:
            return function if getattr(first, "instance_class", None) is kind else None

        overload(operation, jit_options={**_FOR_KERNELS_ONLY, **_BORROWING}, strict=False)(choose)
        return function

    return register


def kernel(function: _Function) -> _Function:
    """Compile an entry point and keep its machine code on disk.

    The folder is ``NUMBA_CACHE_DIR`` where that is set, else ``__pycache__`` beside this file, else, where that cannot be written, one
    in the user's cache; in it, one folder for each state of the package's source.
    """
    return _kept(function, _OPTIONS)


def borrowing_kernel(function: _Function) -> _Function:
    """A `kernel` that allocates nothing, for the reasons of `borrower`."""
    return _kept(function, _BORROWING)


def folder_of_kept_code(given: str) -> Path:
    """Where machine code is kept: the folder that was given, else beside the package, else in the user's cache.

    Numba would find a folder of the user's by itself, but one without the digest.
    """
    if given:
        return Path(given)
    package = Path(__file__).parent
    beside = package / "__pycache__"
    if os.access(beside if beside.exists() else package, os.W_OK):
        return beside
    return Path(user_cache_dir("clusterofone", appauthor=False)) / "numba"


def folder_of_kernels(given: str) -> Path:
    """Return where the machine code of this state of the package's source is kept."""
    return folder_of_kept_code(given) / f"kernels-{_DIGEST}"


def _kept(function: _Function, options: dict[str, Any]) -> _Function:
    kept = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder_of_kernels(kept))
    try:
        compiled: _Function = numba.njit(cache=True, no_cfunc_wrapper=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = kept
    return compiled
