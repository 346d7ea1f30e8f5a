"""Memory is used again, and never while anybody still looks into it."""

from __future__ import annotations

import gc

import numpy as np

from cluster.worker.memory import Memory

U2 = np.dtype("u2")


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_handed_out_again_once_its_array_is_gone() -> None:
    memory = Memory()
    first = memory.array((10, 4, 5), U2)
    at = address(first)

    del first
    gc.collect()
    again = memory.array((9, 4, 5), U2)

    assert address(again) == at
    assert (again.shape, again.dtype, again.flags.writeable) == ((9, 4, 5), U2, True)


def test_a_part_of_an_array_keeps_the_memory_of_the_whole() -> None:
    memory = Memory()
    whole = memory.array((10, 4, 5), U2)
    whole[:] = 7
    part = whole[3:5][:, ::2]

    del whole
    gc.collect()
    memory.array((10, 4, 5), U2)[:] = 9

    assert (part == 7).all()


def test_memory_that_is_too_small_makes_room_for_larger() -> None:
    memory = Memory(kept=2)
    for count in (1, 2, 3, 4):
        memory.array((count, 100, 100), U2)
        gc.collect()

    assert [len(block) for block in memory._free] == [80_000]


def test_no_more_is_kept_than_said() -> None:
    memory = Memory(kept=2)
    arrays = [memory.array((10, 10, 10), U2) for _ in range(5)]

    arrays.clear()
    gc.collect()

    assert len(memory._free) == 2


def test_an_array_of_nothing_is_an_array() -> None:
    assert Memory().array((0, 4, 5), U2).shape == (0, 4, 5)
