"""Memory that two processes share, for frames: neither a name nor a file is left when both are gone."""

from __future__ import annotations

import mmap
import os
import secrets
import sys
from typing import Any

if sys.platform == "win32":

    class Shared:
        """Shared memory, which Windows knows by a name that nobody can guess."""

        def __init__(self, size: int) -> None:
            self._name = f"clusterofone-{secrets.token_hex(16)}"
            self.memory = mmap.mmap(-1, size, tagname=self._name)

        @property
        def address(self) -> str:
            """Return what a process started with `options` opens it by."""
            return self._name

        def options(self) -> dict[str, Any]:
            """Return how a process that is to see it must be started."""
            return {}

        def handed_over(self) -> None:
            """Say that the other process has been started; the memory lasts as long as somebody refers to it."""

    def attach(address: str, size: int) -> mmap.mmap:
        """Return the memory at an address."""
        return mmap.mmap(-1, size, tagname=address)

else:
    import tempfile

    class Shared:
        """Shared memory behind a descriptor that the other process inherits."""

        def __init__(self, size: int) -> None:
            self._descriptor = _anonymous_file(size)
            self.memory = mmap.mmap(self._descriptor, size)

        @property
        def address(self) -> str:
            """Return what a process started with `options` opens it by."""
            return str(self._descriptor)

        def options(self) -> dict[str, Any]:
            """Return how a process that is to see it must be started."""
            return {"pass_fds": (self._descriptor,)}

        def handed_over(self) -> None:
            """Say that the other process has been started; the memory lasts as long as somebody refers to it."""
            os.close(self._descriptor)

    def attach(address: str, size: int) -> mmap.mmap:
        """Return the memory at an address."""
        descriptor = int(address)
        try:
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    if sys.platform == "linux":
        import fcntl

        def _anonymous_file(size: int) -> int:
            """Not in /dev/shm, of which a container may have 64 MB; and the other side cannot cut it short under us."""
            descriptor = os.memfd_create("clusterofone-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return descriptor

    else:

        def _anonymous_file(size: int) -> int:
            with tempfile.TemporaryFile() as file:
                file.truncate(size)
                return os.dup(file.fileno())
