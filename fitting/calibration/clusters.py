"""Which points lie together: DBSCAN's notion, worked out on cells so that a million points in a few places take a second.

Points in one cell, a third of the radius wide, are together. Cells are joined where their points' means are within the radius, if there is a crowd: as many points
as asked within the radius [1]_.

References
----------
.. [1] M. Ester et al., Proc. KDD-96, 226 (1996).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

ALONE = -1
_CELLS = 3  # in a radius


def clusters(points: npt.NDArray[np.floating], radius: float, least: int = 1) -> npt.NDArray[np.int64]:
    """Label the cluster of every point.

    Parameters
    ----------
    points : (n, d) array
    radius : float
        How far a point may be from the next of its cluster, in the unit of the points.
    least : int
        How many points make a crowd; what is in none, nor beside one, is alone.

    Returns
    -------
    (n,) int64 array
        Labels 0, 1, … by the place of the cluster's first point in the table; -1 for points that are alone.
    """
    places = np.asarray(points, np.float64)
    if not len(places):
        return np.zeros(0, np.int64)
    cells, of_point, counts = np.unique(
        np.floor(places * (_CELLS / radius)).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    of_point = of_point.ravel()
    means = np.stack(
        [np.bincount(of_point, weights=column, minlength=len(cells)) for column in places.T], axis=1
    )
    tree = cKDTree(means / counts[:, np.newaxis])
    pairs = tree.query_pairs(radius, output_type="ndarray")
    crowd = counts.astype(np.int64)
    np.add.at(crowd, pairs[:, 0], counts[pairs[:, 1]])
    np.add.at(crowd, pairs[:, 1], counts[pairs[:, 0]])
    return _by_first_point(_cell_labels(pairs, crowd >= least)[of_point])


def _cell_labels(pairs: npt.NDArray[np.int64], core: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Components of the core cells; other cells take the label of a core cell beside them, if there is one."""
    number = len(core)
    both = pairs[core[pairs].all(axis=1)]
    links = coo_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(number, number))
    labels: npt.NDArray[np.int64] = connected_components(links, directed=False)[1]
    labels[~core] = ALONE
    for a, b in ((0, 1), (1, 0)):
        border = pairs[~core[pairs[:, a]] & core[pairs[:, b]]]
        labels[border[:, a]] = labels[border[:, b]]
    return np.asarray(labels, np.int64)


def _by_first_point(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    names, first = np.unique(labels, return_index=True)
    kept = names != ALONE
    order = names[kept][np.argsort(first[kept])]
    renamed = np.full(int(labels.max(initial=0)) + 2, ALONE, np.int64)
    renamed[order] = np.arange(len(order))
    return np.asarray(renamed[labels], np.int64)
