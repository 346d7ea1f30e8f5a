"""Every command that a file under `deploy/` runs is one that this version understands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cluster.commands import program

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
ENVIRONMENT = dict(
    line.lstrip("#").split("=", 1)
    for line in (DEPLOY / "systemd/clusterofone.env").read_text(encoding="utf-8").splitlines()
    if re.match(r"#?[A-Z_]+=", line)
)


def units() -> list[tuple[str, list[str]]]:
    found = []
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
        filled = re.sub(r"\$\{(\w+)\}", lambda match: ENVIRONMENT[match[1]], line).replace("%i", "4")
        found.append((unit.name, shlex.split(filled)[1:]))
    return found


def containers() -> list[tuple[str, list[str]]]:
    compose = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text(encoding="utf-8"))
    found = [(f"compose {name}", service["command"]) for name, service in compose["services"].items()]
    for manifest in yaml.safe_load_all((DEPLOY / "kubernetes/clusterofone.yaml").read_text(encoding="utf-8")):
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            found += [(f"kubernetes {one['name']}", one["args"]) for one in pod["containers"]]
    image = (DEPLOY / "container/Dockerfile").read_text(encoding="utf-8")
    (usual,) = re.findall(r"^CMD (\[.*\])$", image, re.MULTILINE)
    return [*found, ("Dockerfile", yaml.safe_load(usual))]


def scripts() -> list[tuple[str, list[str]]]:
    found = []
    for script in sorted((DEPLOY / "slurm").glob("*.sbatch")):
        text = script.read_text(encoding="utf-8")
        for words in re.findall(
            r'^(?:worker=\()?"\$clusterofone" (.*?)(?: \|\| .*| &.*| > .*|\))?$', text, re.MULTILINE
        ):
            plain = re.sub(r'"\$\{\w+\[@\]\}"', "", words).replace('"${until:-3h50m}"', "3h50m")
            plain = re.sub(r'"\$\{\w+:-(\d+)\}"', r"\1", plain)
            plain = re.sub(r'"\$\w+"', "http://there:1", plain).rstrip(")")
            words = shlex.split(plain.split(" > ")[0].split(" &")[0].split(" || ")[0])
            found.append(
                (f"{script.name}: {words[0]}", [*words, *(["series.tif"] if words[0] == "localise" else [])])
            )
    return found


@pytest.fixture(scope="module")
def commands() -> Any:
    if not program.app.registered_commands:
        program._register()
    return typer.main.get_command(program.app)


@pytest.mark.parametrize(
    ("where", "words"), [*units(), *containers(), *scripts()], ids=lambda value: str(value)[:40]
)
def test_its_options_exist(
    where: str, words: list[str], commands: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = words[0] if not words[0].startswith("-") else None
    command = commands.commands[name] if name else commands

    command.make_context(name or "clusterofone", list(words[1:] if name else words), resilient_parsing=False)


def test_every_command_of_the_scripts_is_looked_at() -> None:
    assert [name.split(": ")[1] for name, _ in scripts()] == [
        "scheduler",
        "dataserver",
        "worker",
        "localise",
        "worker",
    ]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_systemd_finds_no_fault_in_a_unit(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8").replace("/opt/clusterofone/bin/clusterofone", "/bin/true")
    copy = tmp_path / unit.name.replace("@", "@4")
    copy.write_text(text.replace("User=clusterofone", "User=root"), encoding="utf-8")

    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], check=False, capture_output=True, text=True
    )

    assert copy.name not in said.stderr


def test_manifests_name_what_they_define() -> None:
    manifests = list(
        yaml.safe_load_all((DEPLOY / "kubernetes/clusterofone.yaml").read_text(encoding="utf-8"))
    )
    claims = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    for manifest in (m for m in manifests if m["kind"] == "Deployment"):
        pod = manifest["spec"]["template"]
        assert manifest["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        used = {
            v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v
        }
        assert used <= claims
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_finds_no_fault_in_the_proxy(tmp_path: Path) -> None:
    site = (DEPLOY / "proxy/nginx.conf").read_text(encoding="utf-8")
    site = re.sub(r"^\s*ssl_certificate.*$", "", site, flags=re.MULTILINE).replace(
        "listen 443 ssl", "listen 8443"
    )
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} http {{ access_log off; {site} }}",
        encoding="utf-8",
    )

    said = subprocess.run(
        ["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], check=False, capture_output=True, text=True
    )

    assert said.returncode == 0, said.stderr


@pytest.mark.skipif(shutil.which("caddy") is None, reason="needs caddy")
def test_caddy_finds_no_fault_in_the_proxy() -> None:
    said = subprocess.run(
        ["caddy", "adapt", "--config", str(DEPLOY / "proxy/Caddyfile"), "--adapter", "caddyfile"],
        check=False,
        capture_output=True,
        text=True,
    )

    assert said.returncode == 0, said.stderr
