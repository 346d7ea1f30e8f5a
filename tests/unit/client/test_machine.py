"""What a machine is called, and the clusters that know it."""

from __future__ import annotations

import stat
import sys
import threading
from pathlib import Path

import pytest

from cluster.errors import Invalid
from cluster.machine import KnownCluster, KnownClusters, core_count, host_name, this_machine


def test_a_machine_keeps_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "state" / "machine.json"

    assert this_machine(path) == this_machine(path)
    assert this_machine(tmp_path / "other.json").id != this_machine(path).id


def test_workers_that_start_together_agree_who_they_are(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    found = []
    threads = [threading.Thread(target=lambda: found.append(this_machine(path))) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps private files by the folder's rights")
def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    this_machine(tmp_path / "machine.json")
    KnownClusters(tmp_path / "known.json").remember("c1", KnownCluster(name="lab", token="t"))

    for name in ("machine.json", "known.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    machine = this_machine(tmp_path / "machine.json")

    assert machine.secret not in repr(machine)
    assert "t0ken" not in repr(KnownCluster(name="lab", token="t0ken"))


@pytest.mark.parametrize("content", ["", "{}", '{"id": "x", "secret": "short"}', "[1]"])
def test_a_damaged_identity_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(Invalid, match=r"machine\.json is damaged"):
        this_machine(path)


def test_known_clusters_are_added_and_replaced(tmp_path: Path) -> None:
    known = KnownClusters(tmp_path / "a" / "known.json")
    one, two = KnownCluster(name="lab", token="1", url="http://a:1"), KnownCluster(name="other")

    known.remember("c1", KnownCluster(name="old"))
    known.remember("c2", two)
    known.remember("c1", one)

    assert known.all() == {"c1": one, "c2": two}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"c1": 5}', '{"c1": {"token": "x"}}'])
def test_a_damaged_list_of_clusters_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "known.json"
    path.write_text(content, encoding="utf-8")

    assert KnownClusters(path).all() == {}


def test_this_machine_has_a_name_and_cores() -> None:
    assert host_name()
    assert "." not in host_name()
    assert core_count() >= 1
