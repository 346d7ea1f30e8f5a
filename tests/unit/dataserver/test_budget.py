from __future__ import annotations

import asyncio

import pytest

from cluster.dataserver.budget import ByteBudget

pytestmark = pytest.mark.anyio


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_requests_come_in_while_they_fit_and_in_order() -> None:
    budget, order = ByteBudget(100), []

    async def ask(name: str, amount: int) -> None:
        await budget.take(amount)
        order.append(name)

    tasks = [asyncio.create_task(ask(name, amount)) for name, amount in (("a", 60), ("b", 60), ("c", 10))]
    await _turns()
    assert order == ["a"]
    budget.give_back(60)
    await _turns()

    assert order == ["a", "b", "c"]
    assert budget.used == 70
    await asyncio.gather(*tasks)


async def test_one_larger_than_the_limit_comes_in_alone() -> None:
    budget = ByteBudget(10)

    async with budget.taken(100):
        waiting = asyncio.create_task(budget.take(1))
        await _turns()
        assert not waiting.done()
    await waiting

    assert budget.used == 1


async def test_one_who_gives_up_waiting_lets_the_next_in() -> None:
    budget = ByteBudget(10)
    await budget.take(8)
    large, small = asyncio.create_task(budget.take(9)), asyncio.create_task(budget.take(2))
    await _turns()

    large.cancel()
    await _turns()

    assert small.done()
    assert budget.used == 10


async def test_one_who_gives_up_as_its_turn_comes_takes_nothing_with_it() -> None:
    budget = ByteBudget(10)
    await budget.take(8)
    waiting = asyncio.create_task(budget.take(9))
    await _turns()

    budget.give_back(8)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert budget.used == 0
