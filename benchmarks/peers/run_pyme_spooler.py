"""How long does PYME's HDF5 spooler take for the frames of an acquisition? Runs inside PYME's own interpreter; see `ingest.py`.

    python run_pyme_spooler.py FILM.npy FRAMES TARGET.h5

Each frame is stored as PYMEAcquire's spooling thread does it; the file is closed and fsynced. Prints the seconds.
"""

import os
import sys
import time

import numpy as np
from PYME.IO.acquisition_backends import HDFBackend

film = np.load(sys.argv[1])
frames, target = int(sys.argv[2]), sys.argv[3]
start = time.perf_counter()
backend = HDFBackend(target, shape=[*film.shape[1:], 1, frames, 1])
backend.initialise()
for number in range(frames):
    backend.store_frame(number, film[number % len(film)])
backend.finalise()
with open(target, "rb") as file:  # noqa: PTH123 -- as plain as its own interpreter may have it
    os.fsync(file.fileno())
print(time.perf_counter() - start)
