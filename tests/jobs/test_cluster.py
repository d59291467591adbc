"""The files of cluster/ fit together: settings, schemas, rooms, metrics."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from jobs.submit import ROOMS
from pipeline.units import DRAIN_S

CLUSTER = Path(__file__).parents[2] / "cluster"
TEMPLATES = ("rayjob.yaml", "ray-up.yaml")


def settings() -> dict[str, str]:
    words = shlex.split((CLUSTER / "settings.env").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


def rendered(name: str) -> Any:
    """As envsubst does it, but a name without a setting is an error."""
    return yaml.safe_load(Template((CLUSTER / name).read_text()).substitute(settings()))


def test_every_setting_is_used_and_every_name_is_set() -> None:
    texts = "".join((CLUSTER / name).read_text() for name in TEMPLATES)
    used = set(re.findall(r"\$\{?([A-Z_]+)\}?", texts))
    assert used == set(settings())


def test_the_launchers_file_satisfies_rays_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="Ray checks its file with it")
    import ray.autoscaler

    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    config = rendered("ray-up.yaml")
    jsonschema.validate(config, schema)
    kinds = config["available_node_types"]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in kinds.values())
    assert kinds[config["head_node_type"]]["resources"]["CPU"] == 0
    assert "RAY_AUTH_MODE=token" in " ".join(config["docker"]["run_options"])
    assert "--address=$RAY_HEAD_IP" in config["worker_start_ray_commands"][1]


def test_a_drained_pod_outlives_the_drain_of_the_run() -> None:
    cluster = rendered("rayjob.yaml")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        variables = {v["name"]: float(v["value"]) for v in pod["containers"][0]["env"]}
        drains = variables["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
        assert DRAIN_S < drains < pod["terminationGracePeriodSeconds"]


def test_the_image_holds_every_room_and_the_lock() -> None:
    copied = re.findall(r"^COPY (\S+) /opt", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert set(copied) == {"requirements.lock", *ROOMS}
    let_in = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(let_in)


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    source = (CLUSTER.parent / "pipeline" / "ray_metrics.py").read_text()
    sums = set(re.findall(r'Sum\("(\w+)"', source))
    told = {f"ray_{name}_total" for name in sums}
    told |= {f"ray_{name}" for name in re.findall(r'Gauge\("(\w+)"', source)}
    shown = json.loads((CLUSTER / "grafana.json").read_text())
    asked = {
        name
        for panel in shown["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_\w+", target["expr"])
    }
    assert asked == told
