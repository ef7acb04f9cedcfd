"""serve/deploy and docs/operations.md fit what they start."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from serve.engine.metrics import Metrics as EngineMetrics
from serve.gateway.identity import Identity
from serve.gateway.metrics import Metrics as GatewayMetrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "serve" / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text().replace("\\\n", "")
UNIT = (DEPLOY / "duologue.service").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
CONF = yaml.safe_load((ROOT / "conf" / "serve.yaml").read_text())
OBJECTS = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").open())}
POD = OBJECTS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
DRAIN_S = CONF["gateway"]["drain_s"] + 20  # and goodbyes of clients, tools, webhooks and engines


def instructions(name: str) -> list[str]:
    """What stands behind a word of the Containerfile's."""
    return re.findall(rf"^ *{name} (.+)$", CONTAINERFILE, re.M)


def overrides(command: list[str]) -> dict[str, str]:
    """Of a command that starts the server."""
    assert "serve.run" in command
    return dict(each.split("=", 1) for each in command if "=" in each)


def routes() -> set[str]:
    tree = ast.parse((ROOT / "serve" / "gateway" / "app.py").read_text())
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and text.startswith("/")}


def keys(node: dict[str, Any], above: str = "") -> Iterator[str]:
    """Dotted, those that hold no others."""
    for name, value in node.items():
        if name == "models" or not isinstance(value, dict):
            yield above + name
        else:
            yield from keys(value, f"{above}{name}.")


# Container


def test_image_copies_what_is_there() -> None:
    for line in instructions("COPY"):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line


def test_image_holds_all_that_is_imported() -> None:
    copied = {source for line in instructions("COPY") for source in line.split()[:-1]}
    own = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    seen, waiting = set[Path](), [ROOT / "serve/run.py", ROOT / "serve/engine/__main__.py"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for module in imported(path):
            assert module.split(".")[0] not in own - copied, f"{path} imports {module}"
            found = ROOT / f"{module.replace('.', '/')}.py"
            waiting += [found] if found.exists() and found not in seen else []
    assert ROOT / "model/agent.py" in seen


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_image_starts_the_server_with_an_extra_that_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extra] = re.findall(r"'\.\[(\w+)\]'", CONTAINERFILE)
    assert extra in project["optional-dependencies"]
    [entry] = instructions("ENTRYPOINT")
    assert {*overrides(json.loads(entry))} <= {*keys(CONF)}
    assert instructions("EXPOSE") == [str(CONF["port"])]
    assert instructions("USER") == [str(POD["spec"]["securityContext"]["runAsUser"])]


def test_image_asks_after_its_own_health() -> None:
    [health] = instructions("HEALTHCHECK")
    command = json.loads(health.partition("CMD ")[2])
    [(port, path)] = re.findall(r"http://127.0.0.1:(\d+)(/\w+)", command[-1])
    assert int(port) == CONF["port"]
    assert path in routes()
    ast.parse(command[-1])


# systemd


def test_unit_starts_the_server_and_lets_calls_end() -> None:
    [command] = re.findall("^ExecStart=(.+)$", UNIT, re.M)
    assert {*overrides(shlex.split(command))} <= {*keys(CONF)}
    [stop_s] = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.M)
    assert int(stop_s) > DRAIN_S
    assert "KillMode=mixed" in UNIT.splitlines()  # else its engines end before the calls do


def test_unit_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    here = UNIT.replace("/opt/duologue/.venv/bin/python", sys.executable)
    (tmp_path / "duologue.service").write_text(here.replace("/opt/duologue", str(ROOT)))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "duologue.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "duologue.service" not in done.stderr, done.stderr


# Kubernetes


def test_objects_belong_together() -> None:
    assert {*OBJECTS} == {"Deployment", "Service", "PodDisruptionBudget"}
    labels = POD["metadata"]["labels"]
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert OBJECTS[kind]["spec"]["selector"]["matchLabels"] == labels
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": CONF["port"]}
    assert [port["targetPort"] for port in OBJECTS["Service"]["spec"]["ports"]] == ["http"]
    volumes = {volume["name"] for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == volumes


def test_probes_and_monitoring_ask_what_there_is() -> None:
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in PROBED}
    assert {name: probe["path"] for name, probe in probes.items()} == PROBED
    annotations = POD["metadata"]["annotations"]
    assert {*PROBED.values(), annotations["prometheus.io/path"]} <= routes()
    assert int(annotations["prometheus.io/port"]) == CONF["port"]
    assert {probe["port"] for probe in probes.values()} == {"http"}


PROBED = {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_pod_lets_calls_end() -> None:
    wait_s = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["spec"]["terminationGracePeriodSeconds"] > wait_s + DRAIN_S


def test_tenants_are_mounted_where_the_image_reads_them() -> None:
    [entry] = instructions("ENTRYPOINT")
    tenants = Path(overrides(json.loads(entry))["tenants"])
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert tenants.parent == Path(mounts["tenants"])
    assert f"--from-file={tenants.name}" in (DEPLOY / "kubernetes.yaml").read_text()


# docs/operations.md


def test_every_key_is_explained() -> None:
    own = {name: value for name, value in CONF.items() if name not in ("defaults", "hydra")}
    named = {*re.findall(r"`([\w.]+)`", OPERATIONS)}
    assert {key for key in keys(own) if not key.endswith("_target_")} <= named


def metrics_of(registry: CollectorRegistry) -> set[str]:
    """As Prometheus knows them."""
    suffix = {"counter": "_total"}
    return {each.name + suffix.get(each.type, "") for each in registry.collect()}


def test_metrics_are_those_that_are_counted() -> None:
    named = {*re.findall(r"`(duologue_\w+)", OPERATIONS)}
    assert named == metrics_of(GatewayMetrics().registry) | metrics_of(EngineMetrics(1).registry)


def test_events_of_the_log_are_those_that_there_are() -> None:
    written = {
        text
        for folder in ("serve", "serve/gateway", "serve/tools", "serve/webhooks")
        for path in ROOT.glob(f"{folder}/*.py")
        for text in re.findall(
            r'log\.(?:info|warning|error|critical|exception)\(\s*"(\w+)"', path.read_text()
        )
    }
    tables = re.findall(r"^\| event.* \| level \| with \|\n((?:\|.*\n)+)", OPERATIONS, re.M)
    firsts = re.findall(r"^\|(.*?)\|", "".join(tables), re.M)
    assert {event for row in firsts for event in re.findall(r"`(\w+)`", row)} == written


def test_the_tenants_of_the_manual_can_be_read(tmp_path: Path) -> None:
    [example] = re.findall(r"\n\n((?:    .*\n)*    tenants:\n(?:    .*\n)+)", OPERATIONS)
    digests = (f"'{number:064x}'" for number in range(9))
    written = re.sub("'DIGEST[^']*'", lambda _: next(digests), example)
    (tmp_path / "tenants.yaml").write_text(written)
    assert Identity(tmp_path / "tenants.yaml")
