from __future__ import annotations

import pickle  # written only, to be refused or read without it
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import Invalid
from cluster.literal_pickle import loads
from cluster.pyme_metadata import UNREADABLE, read_tree

KEYS = st.text(max_size=8) | st.integers()
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=16,
)


@settings(max_examples=200, deadline=None)
@given(LITERALS)
def test_a_pickled_literal_reads_back(value: Any) -> None:
    assert loads(pickle.dumps(value, 0)) == value


@settings(max_examples=200, deadline=None)
@given(
    st.binary()
    | st.lists(st.sampled_from(list("(lpgtdaseu]})NI01\nL5.FSV'cRio")), max_size=30).map(
        lambda c: "".join(c).encode()
    )
)
def test_any_bytes_are_a_literal_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except Invalid:
        return
    assert value is None or isinstance(value, bool | int | float | str | list | tuple | dict)


def test_python_2_texts_and_long_integers_are_read() -> None:
    assert loads(b"(lp0\n(lp1\nS'alpha-tubulin'\np2\naS'ATTO655'\np3\naaL100L\na.") == [
        ["alpha-tubulin", "ATTO655"],
        100,
    ]


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("never"),))


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps(Bomb(), 0),
        pickle.dumps([1, Bomb()], 2),
        pickle.dumps(np.float64(1.0), 0),
        b"cos\nsystem\n(S'true'\ntR.",
        b"(lp0\ng0\na.",
        b"(lp0\n" + b"".join(b"(lp%d\ng%d\nag%d\na" % (n + 1, n, n) for n in range(60)) + b".",
        b"N",
        b"NN.",
        b"(.",
        b"(p0\n(g0\nl.",
    ],
)
def test_objects_loops_and_fragments_are_refused(pickled: bytes) -> None:
    with pytest.raises(Invalid):
        loads(pickled)


def test_the_tree_reads_every_kind_of_attribute_as_a_plain_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("MetaData")
        camera = group.create_group("Camera")
        camera.attrs["CLASS"] = np.bytes_(b"GROUP")
        camera.attrs["ADOffset"] = np.float64(100.5)
        camera.attrs["EMGain"] = np.int64(3)
        camera.attrs["Name"] = "Zyla µ"
        camera.attrs["Model"] = np.bytes_(b"Model 4.2.")
        camera.attrs["Empty"] = h5py.Empty("S1")
        camera.attrs["ROI"] = np.bytes_(pickle.dumps((1, 2, [None]), 0))
        camera.attrs["Object"] = np.bytes_(pickle.dumps(Bomb(), 0))
        camera.attrs["Array"] = np.arange(3)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        flag = h5py.h5a.create(camera.id, b"Cooled", h5py.h5t.NATIVE_B8, space)
        flag.write(np.array(1, np.uint8), mtype=h5py.h5t.NATIVE_B8)

        values = read_tree(group)

    assert values == {
        "Camera.ADOffset": 100.5,
        "Camera.EMGain": 3,
        "Camera.Name": "Zyla µ",
        "Camera.Model": "Model 4.2.",
        "Camera.Empty": "",
        "Camera.ROI": (1, 2, [None]),
        "Camera.Object": UNREADABLE,
        "Camera.Array": [0, 1, 2],
        "Camera.Cooled": True,
    }
    assert values["Camera.Cooled"] is True
