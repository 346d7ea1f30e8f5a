"""Any metadata survive the way into a file and back, ours and PyTables'."""

from __future__ import annotations

from typing import Any

import h5py
import tables
from hypothesis import given
from hypothesis import strategies as st

from cluster.pyme_metadata import read_tree
from cluster.results.metadata_tree import write_tree

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)
NAMES = st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,8}\Z").filter(
    lambda name: name not in ("CLASS", "TITLE", "VERSION")
)
SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), st.none(), TEXT.filter(lambda text: text != "")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)


def in_memory(metadata: dict[str, Any]) -> h5py.File:
    file = h5py.File("none.h5", "w", driver="core", backing_store=False)
    write_tree(file.create_group("MetaData"), metadata)
    return file


@given(metadata=st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_metadata_come_back_as_they_were(metadata: dict[str, Any]) -> None:
    with in_memory(metadata) as file:
        back = read_tree(file["MetaData"])

    assert back == metadata
    assert {key: type(value) for key, value in back.items()} == {
        key: type(value) for key, value in metadata.items()
    }


@given(value=VALUES)
def test_pytables_reads_the_same_value(value: Any) -> None:
    with in_memory({"A.b": value}) as file:
        file.flush()
        image = file.id.get_file_image()

    with tables.open_file(
        "none.h5", driver="H5FD_CORE", driver_core_image=image, driver_core_backing_store=0
    ) as back:
        found = back.root.MetaData.A._v_attrs["b"]

    assert found == value
