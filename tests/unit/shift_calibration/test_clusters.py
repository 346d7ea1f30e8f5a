from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fitting.calibration.clusters import ALONE, clusters


def test_points_that_lie_together_are_one_cluster_and_stray_ones_alone() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [5000, 0], [0, 5000]])
    points = np.concatenate(
        [centre + rng.normal(0, 50, (100, 2)) for centre in centres] + [np.full((1, 2), 9000.0)]
    )

    labels = clusters(points, 300.0, least=10)

    assert labels.tolist() == [0] * 100 + [1] * 100 + [2] * 100 + [ALONE]


def test_a_trail_is_one_cluster() -> None:
    x = np.arange(0, 10_000, 20.0)

    assert set(clusters(np.stack([x, 0.3 * x], axis=1), 100.0, least=5)) == {0}


@given(seed=st.integers(0, 1000))
def test_the_order_of_points_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 3000, (120, 2))
    order = rng.permutation(120)

    labels, other = clusters(points, 200.0, 3), clusters(points[order], 200.0, 3)

    same = labels[order][:, np.newaxis] == labels[order]
    np.testing.assert_array_equal(same, other[:, np.newaxis] == other)


def test_no_points_are_no_clusters() -> None:
    assert len(clusters(np.zeros((0, 2)), 10.0)) == 0
