"""What an announcement says, which cluster is chosen, and which address is believed."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import discovery, mdns
from cluster.discovery import Found, announcement, choose, found_from, instance_label, merged, reachable
from cluster.errors import ClusterError, Conflict, NotFound, Unavailable
from cluster.protocol import Identity

pytestmark = pytest.mark.anyio


def identity(cluster_id: str = "c1", name: str = "lab", role: str = "scheduler") -> Identity:
    return Identity.model_validate(
        {
            "role": role,
            "cluster_id": cluster_id,
            "name": name,
            "machine": "m",
            "version": "1",
            "join": "approve",
        }
    )


def found(number: int, name: str = "lab", *urls: str) -> Found:
    return Found(f"c{number}", name, urls or (f"http://10.0.0.{number}:15400",), 1)


def as_bytes(txt: dict[str, str]) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in txt.items()}


# --- what is said ---


def test_what_is_announced_is_what_is_found() -> None:
    txt = announcement(identity(name="Labor für µ-Optik"), tls=False)

    read = found_from(as_bytes(txt), ["192.168.1.7", "fd00::7"], 15401)

    assert read == Found(
        "c1", "Labor für µ-Optik", ("http://192.168.1.7:15401", "http://[fd00::7]:15401"), 1, "approve"
    )


def test_tls_is_announced() -> None:
    read = found_from(as_bytes(announcement(identity(), tls=True)), ["10.0.0.1"], 15400)

    assert read is not None
    assert read.urls == ("https://10.0.0.1:15400",)


@given(st.text(max_size=300))
def test_names_of_any_length_fit_into_dns(name: str) -> None:
    txt = announcement(identity(name=name[:1024]), tls=False)

    assert len(instance_label(name, "a1b2c3").encode()) <= 63
    assert instance_label(name, "a1b2c3").endswith("-a1b2c3")
    assert "." not in instance_label(name, "a1b2c3")
    assert all(len(f"{key}={value}".encode()) <= 255 for key, value in txt.items())
    assert all(len(key) <= 9 for key in txt)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.1.1", "::1", "0.0.0.0", "224.0.0.251", "fe80::1", "what"]
)
def test_addresses_that_lead_nowhere_are_left_out(address: str) -> None:
    read = found_from(as_bytes(announcement(identity(), tls=False)), [address, "10.0.0.1"], 15400)

    assert read is not None
    assert read.urls == ("http://10.0.0.1:15400",)


@pytest.mark.parametrize(
    "change",
    [{"txtvers": "2"}, {"id": ""}, {"proto": "x"}, {"proto": ""}],
)
def test_an_announcement_that_is_not_understood_is_passed_over(change: dict[str, str]) -> None:
    txt = announcement(identity(), tls=False) | change

    assert found_from(as_bytes(txt), ["10.0.0.1"], 15400) is None


def test_an_announcement_without_a_usable_address_is_passed_over() -> None:
    txt = as_bytes(announcement(identity(), tls=False))

    assert found_from(txt, ["127.0.1.1"], 15400) is None
    assert found_from(txt, ["10.0.0.1"], 0) is None


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert found_from({b"\xff": b"\xfe", b"id": None}, ["10.0.0.1"], 15400) is None


def test_one_cluster_heard_in_several_ways_is_one_with_all_its_addresses() -> None:
    heard = [found(1, "lab", "http://a:1"), found(2, "b"), found(1, "lab", "http://b:1", "http://a:1")]

    assert merged(heard) == [found(2, "b"), found(1, "lab", "http://a:1", "http://b:1")]


def test_own_addresses_are_ones_that_others_can_use() -> None:
    assert all(discovery._usable(address) for address in discovery.own_addresses())


# --- one-shot questions ---


def test_the_question_asks_for_a_unicast_reply() -> None:
    assert mdns.question() == (
        b"\0\0\0\0\0\x01\0\0\0\0\0\0\x0d_clusterofone\x04_tcp\x05local\0\0\x0c\x80\x01"
    )


@settings(deadline=None)  # the first example pays for the import of zeroconf
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_noise_on_the_network_is_no_cluster(packets: list[bytes]) -> None:
    assert mdns.found_in(packets) == []


def test_an_answer_is_read() -> None:
    from zeroconf import DNSOutgoing
    from zeroconf.const import _FLAGS_AA, _FLAGS_QR_RESPONSE

    info = discovery._service_info(identity(name="lab"), "lab-1", 15400, ["10.0.0.1", "127.0.1.1"], tls=False)
    out = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA, multicast=False)
    for record in (info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()):
        out.add_answer_at_time(record, 0)

    assert mdns.found_in(out.packets()) == [Found("c1", "lab", ("http://10.0.0.1:15400",), 1, "approve")]


# --- which one ---


def test_a_cluster_alone_is_the_one() -> None:
    assert choose([found(1)], name=None, known=(), ask=None) == found(1)


def test_a_name_decides() -> None:
    assert choose([found(1, "a"), found(2, "b")], name="b", known=("c1",), ask=None) == found(2, "b")


def test_a_name_that_nobody_has_lists_those_there_are() -> None:
    with pytest.raises(NotFound, match=r"no cluster x .*there are a, b"):
        choose([found(1, "a"), found(2, "b")], name="x", known=(), ask=None)


def test_no_cluster_at_all_is_not_found() -> None:
    with pytest.raises(NotFound):
        choose([], name=None, known=(), ask=None)


def test_of_several_the_one_joined_before_is_chosen_unasked() -> None:
    assert choose([found(1, "a"), found(2, "b")], name=None, known=("c2",), ask=lambda _: 0) == found(2, "b")


def test_of_several_a_person_is_asked() -> None:
    shown: list[list[str]] = []

    def ask(names: list[str]) -> int:
        shown.append(names)
        return 1

    assert choose([found(1, "a"), found(2, "b")], name=None, known=(), ask=ask) == found(2, "b")
    assert shown == [["a  http://10.0.0.1:15400", "b  http://10.0.0.2:15400"]]


@pytest.mark.parametrize("answer", [-1, 2, 99])
def test_an_answer_out_of_range_is_refused(answer: int) -> None:
    with pytest.raises(Conflict, match="no choice"):
        choose([found(1, "a"), found(2, "b")], name=None, known=(), ask=lambda _: answer)


@pytest.mark.parametrize("known", [(), ("c1", "c2")], ids=["none joined", "both joined"])
def test_of_several_and_nobody_to_ask_none_is_chosen_and_all_are_listed(known: tuple[str, ...]) -> None:
    with pytest.raises(Conflict, match=r"a \(http://10\.0\.0\.1:15400\), b .*--name"):
        choose([found(1, "a"), found(2, "b")], name=None, known=known, ask=None)


def test_two_clusters_of_one_name_are_two() -> None:
    with pytest.raises(Conflict):
        choose([found(1), found(2)], name="lab", known=(), ask=None)


# --- which address ---


async def test_the_address_where_the_cluster_answers_is_taken() -> None:
    async def identify(url: str) -> Identity:
        if url == "http://b:1":
            return identity()
        if url == "http://c:1":
            return identity("another cluster")
        if url == "http://d:1":
            return identity(role="dataserver")
        raise Unavailable("nobody there")

    one = found(1, "lab", "http://a:1", "http://d:1", "http://c:1", "http://b:1")

    assert await reachable(one, identify) == "http://b:1"


async def test_an_address_that_hangs_does_not_hold_up_the_others() -> None:
    cancelled: list[str] = []

    async def identify(url: str) -> Identity:
        if url == "http://b:1":
            return identity()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(url)
        raise AssertionError

    assert await reachable(found(1, "lab", "http://a:1", "http://b:1"), identify) == "http://b:1"
    await asyncio.sleep(0)
    assert cancelled == ["http://a:1"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_cluster_that_answers_nowhere_is_unavailable_and_its_addresses_are_named(hangs: bool) -> None:
    async def identify(url: str) -> Identity:
        if hangs:
            await asyncio.Event().wait()
        raise ClusterError("no")

    with pytest.raises(Unavailable, match="http://a:1, http://b:1"):
        await reachable(found(1, "lab", "http://a:1", "http://b:1"), identify, race_s=0.02)


async def test_a_found_cluster_is_heard_over_the_loopback_of_mdns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(timeout_s: float) -> list[Found]:
        raise OSError("port 5353 is taken")

    async def heard(timeout_s: float) -> list[Found]:
        return [found(2, "b"), found(1, "a")]

    monkeypatch.setattr(discovery, "_listen", deaf)
    monkeypatch.setattr(mdns, "ask_once", heard)

    assert await discovery.browse(0.1) == [found(1, "a"), found(2, "b")]
    assert await discovery.browse(0.1, name="b") == [found(2, "b")]


async def test_where_mdns_cannot_be_used_at_all_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(timeout_s: float) -> list[Found]:
        raise OSError("no interface")

    monkeypatch.setattr(discovery, "_listen", deaf)
    monkeypatch.setattr(mdns, "ask_once", deaf)

    with pytest.raises(Unavailable, match="no interface"):
        await discovery.browse(0.1)
