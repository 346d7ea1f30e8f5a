"""In which order a scheduler is looked for, and which token goes where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster import trust
from cluster.config import Places, Runtime, write_private
from cluster.discovery import Found
from cluster.errors import Conflict, Invalid, Unavailable
from cluster.locate import Locator, Wanted
from cluster.machine import KnownCluster, KnownClusters
from cluster.protocol import Identity

pytestmark = pytest.mark.anyio
LAB = "http://192.168.1.5:15400"
OWN = "http://127.0.0.1:15400"


class World:
    """Schedulers by URL, and what mDNS hears."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.there: dict[str, tuple[str, str]] = {}
        self.heard: list[Found] | Unavailable = []
        self.browsed = 0
        self.asked: list[str] = []

    async def identify(self, url: str) -> Identity:
        self.asked.append(url)
        if url not in self.there:
            raise Unavailable(f"{url} cannot be reached")
        cluster_id, name = self.there[url]
        role: Any = "dataserver" if name == "data" else "scheduler"
        return Identity(role=role, cluster_id=cluster_id, name=name, machine="m", version="1")

    async def browse(self) -> list[Found]:
        self.browsed += 1
        if isinstance(self.heard, Unavailable):
            raise self.heard
        return self.heard

    def locator(self, ask: Callable[[list[str]], int] | None = None, role: Any = "worker") -> Locator:
        return Locator(
            self.places,
            role=role,
            identify=self.identify,
            browse=self.browse,
            ask=ask,
            own=lambda: ["192.168.1.2"],
        )

    def run_own(self, name: str = "mine", url: str = OWN, cluster_id: str = "c-own") -> str:
        """Let this user run a cluster on this machine; gives its worker token."""
        self.there[url] = (cluster_id, name)
        runtime = Runtime(name=name, cluster_id=cluster_id, url=url, dataserver=None, pid=1)
        write_private(self.places.runtime(name), runtime.model_dump_json())
        return trust.token(trust.load_or_create_secret(self.places.secret(name)), "worker")

    def configure(self, text: str) -> None:
        self.places.config.mkdir(parents=True, exist_ok=True)
        (self.places.config / "config.toml").write_text(text, encoding="utf-8")

    def known(self) -> KnownClusters:
        return KnownClusters(self.places.known_clusters)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Places(config=tmp_path / "config", state=tmp_path / "state", cache=tmp_path / "cache"))


def heard(number: int, name: str) -> Found:
    return Found(f"c{number}", name, (f"http://10.0.0.{number}:15400",), 1)


async def test_each_place_is_looked_at_only_when_those_before_say_nothing(world: World) -> None:
    world.there = {f"http://10.0.0.{n}:15400": (f"c{n}", "x") for n in range(1, 6)}
    world.heard = [heard(4, "x")]
    world.known().remember("c5", KnownCluster(name="x", url="http://10.0.0.5:15400"))
    world.run_own(url="http://127.0.0.1:15401")
    world.configure('scheduler = "10.0.0.3"')
    everything = Wanted(url="10.0.0.1", environ_url="10.0.0.2")
    found = [
        await world.locator().locate(wanted)
        for wanted in (everything, Wanted(environ_url="10.0.0.2"), Wanted())
    ]
    world.configure("")
    found.append(await world.locator().locate(Wanted()))
    world.places.runtime("mine").unlink()
    found.append(await world.locator().locate(Wanted()))
    world.heard = []
    found.append(await world.locator().locate(Wanted()))

    assert [located.cluster_id for located in found] == ["c1", "c2", "c3", "c-own", "c4", "c5"]
    assert [located.source for located in found] == [
        "the address given",
        "CLUSTEROFONE_SCHEDULER",
        str(world.places.config / "config.toml"),
        "your cluster on this machine",
        "mDNS",
        "joined before",
    ]


async def test_an_address_that_was_given_is_the_only_one_tried(world: World) -> None:
    world.run_own()
    world.heard = [heard(4, "x")]

    with pytest.raises(Unavailable, match=r"192\.168\.1\.5"):
        await world.locator().locate(Wanted(url=LAB))

    assert (world.asked, world.browsed) == ([LAB], 0)


async def test_the_end_of_the_search_says_what_was_tried(world: World) -> None:
    world.heard = Unavailable("mDNS cannot be used here: no interface")

    with pytest.raises(Unavailable) as caught:
        await world.locator().locate(Wanted(name="lab"))

    for tried in (
        "lab",
        "--scheduler",
        "CLUSTEROFONE_SCHEDULER",
        "config.toml",
        "this machine",
        "no interface",
    ):
        assert tried in caught.value.detail


async def test_who_sends_data_does_not_take_what_the_network_proposes(world: World) -> None:
    world.there = {"http://10.0.0.4:15400": ("c4", "x")}
    world.heard = [heard(4, "x")]
    world.known().remember("c4", KnownCluster(name="x", url="http://10.0.0.4:15400"))

    with pytest.raises(Unavailable):
        await world.locator().locate(Wanted(discover=False))

    assert (world.asked, world.browsed) == ([], 0)


async def test_a_cluster_that_died_and_left_its_runtime_file_is_passed_over(world: World) -> None:
    world.run_own("dead")
    world.there = {OWN: ("someone else's", "x")}
    world.run_own("zalive", "http://127.0.0.1:15405", "c-alive")

    located = await world.locator().locate(Wanted())

    assert located.cluster_id == "c-alive"


async def test_a_name_picks_among_ones_own_clusters(world: World) -> None:
    world.run_own("a")
    world.run_own("b", "http://127.0.0.1:15405", "c-b")

    assert (await world.locator().locate(Wanted(name="b"))).cluster_id == "c-b"


async def test_a_data_servers_address_is_not_a_schedulers(world: World) -> None:
    world.there[LAB] = ("c1", "data")

    with pytest.raises(Invalid, match="is a dataserver"):
        await world.locator().locate(Wanted(url=LAB))


async def test_several_clusters_and_nobody_to_ask_is_an_error_and_a_person_decides(world: World) -> None:
    world.there = {f"http://10.0.0.{n}:15400": (f"c{n}", "x") for n in (1, 2)}
    world.heard = [heard(1, "a"), heard(2, "b")]

    with pytest.raises(Conflict, match="several clusters"):
        await world.locator().locate(Wanted())
    located = await world.locator(ask=lambda names: len(names) - 1).locate(Wanted())

    assert located.cluster_id == "c2"


# --- tokens ---


async def test_a_token_that_was_given_comes_before_all_others(world: World, tmp_path: Path) -> None:
    world.run_own()
    (tmp_path / "token").write_text("from-file\n", encoding="utf-8")
    world.configure(f"token_file = '{tmp_path / 'token'}'")

    given = await world.locator().locate(Wanted(token="given", environ_token="environ"))
    environ = await world.locator().locate(Wanted(environ_token="environ"))
    configured = await world.locator().locate(Wanted())

    assert (given.token, environ.token, configured.token) == ("given", "environ", "from-file")


async def test_ones_own_cluster_needs_no_token(world: World) -> None:
    worker_token = world.run_own()
    secret = trust.load_or_create_secret(world.places.secret("mine"))

    assert (await world.locator().locate(Wanted())).token == worker_token
    assert (await world.locator(role="owner").locate(Wanted(url=OWN))).token == trust.token(secret, "owner")


async def test_a_stranger_that_claims_to_be_ones_own_cluster_gets_no_token_of_it(world: World) -> None:
    world.run_own()
    world.there["http://10.6.6.6:15400"] = ("c-own", "mine")
    del world.there[OWN]
    world.heard = [Found("c-own", "mine", ("http://10.6.6.6:15400",), 1)]

    located = await world.locator().locate(Wanted())

    assert located.token is None


async def test_ones_own_cluster_at_an_address_of_this_machine_is_ones_own(world: World) -> None:
    token = world.run_own()
    world.there["http://192.168.1.2:15400"] = ("c-own", "mine")

    assert (await world.locator().locate(Wanted(url="192.168.1.2"))).token == token


async def test_a_cluster_joined_before_gets_the_token_it_gave(world: World) -> None:
    world.there[LAB] = ("c1", "lab")
    world.known().remember("c1", KnownCluster(name="lab", token="gave", url="http://old:1"))

    assert (await world.locator().locate(Wanted(url=LAB))).token == "gave"


async def test_tokens_are_not_shown(world: World) -> None:
    world.there[LAB] = ("c1", "lab")
    wanted = Wanted(url=LAB, token="t0ken", environ_token="t0ken")

    assert "t0ken" not in repr(wanted)
    assert "t0ken" not in repr(await world.locator().locate(wanted))


# --- the configuration file ---


@pytest.mark.parametrize(
    ("text", "names"),
    [("schedular = 'x'", "schedular"), ("scheduler = 5", "scheduler"), ("scheduler = ", "config.toml")],
)
async def test_a_configuration_that_cannot_be_understood_is_named(
    world: World, text: str, names: str
) -> None:
    world.configure(text)

    with pytest.raises(Invalid, match=names):
        await world.locator().locate(Wanted())


async def test_a_token_file_that_is_not_there_is_named(world: World) -> None:
    world.there[LAB] = ("c1", "lab")
    world.configure("token_file = 'nowhere/token'")

    with pytest.raises(Invalid, match="nowhere"):
        await world.locator().locate(Wanted(url=LAB))


# --- a scheduler that moved ---


async def test_a_cluster_that_moved_is_found_by_its_id_alone(world: World) -> None:
    world.there = {"http://10.0.0.2:15400": ("c1", "renamed"), "http://10.0.0.1:15400": ("c9", "lab")}
    world.heard = [
        Found("c9", "lab", ("http://10.0.0.1:15400",), 1),
        Found("c1", "renamed", ("http://10.0.0.2:15400",), 1),
    ]

    assert await world.locator().again("c1", discover=True) == "http://10.0.0.2:15400"
    assert await world.locator().again("c5", discover=True) is None


async def test_ones_own_cluster_is_found_again_without_the_network(world: World) -> None:
    world.run_own(url="http://127.0.0.1:15407")

    assert await world.locator().again("c-own", discover=False) == "http://127.0.0.1:15407"
    assert await world.locator().again("c1", discover=False) is None
    assert world.browsed == 0


@pytest.mark.parametrize("trouble", [Unavailable("no mDNS"), [Found("c1", "lab", ("http://10.0.0.8:1",), 1)]])
async def test_a_cluster_that_cannot_be_found_again_is_none_and_no_error(world: World, trouble: Any) -> None:
    world.heard = trouble

    assert await world.locator().again("c1", discover=True) is None
