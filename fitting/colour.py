r"""Which species a molecule belongs to, by the likelihood of its two images.

Each species sends a known share r of its light into channel 0. The molecule is fitted once more for every species, with its light shared
out that way, and the species whose fit has the highest likelihood is taken. The margin is by how much,

.. math:: m = \ln L_1 - \ln L_2 ,

so that with equal numbers of both the odds against the second are :math:`e^m` [1]_. Unlike a cut in the plane of two intensities it knows the
background, the noise and the neighbouring parameters of every molecule.

References
----------
.. [1] Where the two fits have equally many parameters, as here, this is their Bayes factor to first order: R. E. Kass and A. E. Raftery,
   J. Am. Stat. Assoc. 90, 773 (1995), https://doi.org/10.1080/01621459.1995.10476572.
"""

from __future__ import annotations

import numpy as np

from fitting.batch import Batch, Rows
from fitting.columns import Parameters
from fitting.linked import Link, estimate_linked
from fitting.psf_kinds import Psf


def assign(rows: Rows, parameters: Parameters, batch: Batch, psf: Psf, link: Link) -> None:
    """Fill `species`, `speciesMargin` and the share of channel 0 with its error, where species are given.

    Parameters
    ----------
    rows : structured array
        Of a two-channel fit; changed in place. `species` is -1 where no fit converged.
    parameters : Parameters
        With a signal in each channel.
    """
    shares = batch.settings["options"]["species"]
    if not shares:
        return
    fraction = parameters.share("N0", "N1")
    rows["gFraction"], rows["gFractionError"] = fraction.value, parameters.error(fraction)
    deviance = np.stack([_deviance(batch, psf, link, share) for share in shares])
    ranked = np.sort(deviance, axis=0)
    rows["species"] = np.where(np.isfinite(ranked[0]), np.argmin(deviance, axis=0), -1)
    rows["speciesMargin"] = np.nan
    if len(shares) > 1:
        with np.errstate(invalid="ignore"):
            rows["speciesMargin"] = 0.5 * (ranked[1] - ranked[0]) / batch.camera.noise_factor**2


def _deviance(
    batch: Batch, psf: Psf, link: Link, share: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Twice how far each molecule's likelihood is from that of a perfect model, its light shared out as a species has it."""
    data, extra = batch.lanes()
    tied = link._replace(ratios=(share, 1 - share))
    found = estimate_linked(psf, tied, data, extra, batch.number, batch.side, batch.shifts)
    deviance = found.quality[:, 0].astype(np.float64)
    return np.where(np.isfinite(deviance), deviance, np.inf)
