"""Alerts and dashboard: Prometheus takes them, they fire when they should, and what they ask for exists."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request

import pytest

from bed import chart, monitoring
from bed.controller import Controller
from bed.eventually import eventually
from test_chart import parsed, the

AGENT_JOB, CONTROLLER_JOB = f"{chart.NAMESPACE}/dormouse-agent", "dormouse-controller-metrics"
AGENT = f'job="{AGENT_JOB}",instance="node-a"'
CONTROLLER = f'job="{CONTROLLER_JOB}",instance="pod-1"'
REQUESTS = "rest_client_requests_total{%s,code=\"%s\",method=\"GET\",host=\"k\"}"
# What makes each alert fire, and the minute by which it does; and the same where all is well.
FIRING = {
    "DormouseAgentDown": (6, {"up{%s}" % AGENT: "0x60"}, {"up{%s}" % AGENT: "1x60"}),
    "DormouseNoLeader": (
        6,
        {"leader_election_master_status{%s}" % CONTROLLER: "0x60"},
        {"leader_election_master_status{%s}" % CONTROLLER: "1x60"},
    ),
    "DormouseSleepingMemoryDamaged": (
        1,
        {'dormouse_memory_scrubs_total{%s,result="damaged"}' % AGENT: "1x60"},
        {'dormouse_memory_scrubs_total{%s,result="intact"}' % AGENT: "9x60"},
    ),
    "DormousePanics": (
        5,
        {'controller_runtime_reconcile_panics_total{%s,controller="node"}' % CONTROLLER: "0 0 1x60"},
        {'controller_runtime_reconcile_panics_total{%s,controller="node"}' % CONTROLLER: "0x60"},
    ),
    "DormouseStepHangs": (
        1,
        {'workqueue_longest_running_processor_seconds{%s,name="sandbox"}' % AGENT: "301x60"},
        {'workqueue_longest_running_processor_seconds{%s,name="sandbox"}' % AGENT: "300x60",
         'workqueue_longest_running_processor_seconds{job="another",name="sandbox"}': "999x60"},
    ),  # fmt: skip
    "DormouseStepsFail": (
        20,
        {'dormouse_step_failures_total{%s,step="disk.prepare"}' % AGENT: "0+1x60"},
        {'dormouse_step_failures_total{%s,step="disk.prepare"}' % AGENT: "7x60"},
    ),
    "DormouseSandboxesRestart": (
        31,
        {"dormouse_sandbox_restarts_total{%s}" % AGENT: "0+1x60"},
        {"dormouse_sandbox_restarts_total{%s}" % AGENT: "3x60"},
    ),
    "DormouseSandboxesWaitForANode": (
        16,
        {"dormouse_sandboxes_waiting{%s}" % CONTROLLER: "2x60"},
        {"dormouse_sandboxes_waiting{%s}" % CONTROLLER: "0x60"},
    ),
    "DormouseWakesAreSlow": (
        11, {"dormouse_wakes_in_line{%s}" % AGENT: "21x60"}, {"dormouse_wakes_in_line{%s}" % AGENT: "20x60"},
    ),  # fmt: skip
    "DormouseQueueGrows": (
        16,
        {'workqueue_depth{%s,name="sandbox"}' % CONTROLLER: "101x60"},
        {'workqueue_depth{%s,name="sandbox"}' % CONTROLLER: "100x60"},
    ),
    "DormouseApiErrors": (
        25,
        {REQUESTS % (AGENT, "200"): "0+10x60", REQUESTS % (AGENT, "<error>"): "0+2x60"},
        {REQUESTS % (AGENT, "200"): "0+10x60", REQUESTS % (AGENT, "503"): "0+1x60"},
    ),
    "DormouseEventsDropped": (
        35,
        {"dormouse_events_dropped_total{%s}" % AGENT: "0+1x60"},
        {"dormouse_events_dropped_total{%s}" % AGENT: "5x60"},
    ),
}


def promtool(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def rendered() -> list[dict]:
    return parsed(
        chart.render(
            "--set=prometheusRule.enabled=true", "--set=prometheusRule.labels.release=prometheus",
            "--set=grafanaDashboard.enabled=true", "--set=serviceMonitor.enabled=true",
            leave_out=frozenset({"CustomResourceDefinition"}),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def rules(rendered, tmp_path_factory):
    """The groups of the PrometheusRule, as a file for promtool. JSON is YAML."""
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(json.dumps(the(rendered, "PrometheusRule", "dormouse")["spec"]))
    return path


def test_prometheus_takes_the_rules(rules):
    checked = promtool("check", "rules", str(rules))
    assert checked.returncode == 0, checked.stderr
    assert f"{len(FIRING)} rules found" in checked.stdout


def test_every_alert_says_what_happened_and_how_bad_it_is(rules):
    for rule in json.loads(rules.read_text())["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_every_alert_is_explained_to_the_person_on_call(rules):
    text = (monitoring.ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for rule in json.loads(rules.read_text())["groups"][0]["rules"]:
        assert f"| `{rule['alert']}` |" in text


def test_alerts_fire_when_they_should_and_only_then(rules, tmp_path):
    alerts = {rule["alert"]: rule for rule in json.loads(rules.read_text())["groups"][0]["rules"]}
    assert alerts.keys() == FIRING.keys()
    # Without a leader's metric that alert fires: it is asked for in its own cases only.
    leads = {"leader_election_master_status{%s}" % CONTROLLER: "1x60"}
    tests = []
    for name, (minute, bad, well) in FIRING.items():
        for fires, series in ((True, bad), (False, well)):
            inputs = [{"series": key, "values": values} for key, values in {**leads, **series}.items()]
            # Any alert that is not listed as expected must not fire.
            tests += [
                {"interval": "1m", "name": f"{name} {'fires' if fires else 'is quiet'}", "input_series": inputs,
                 "promql_expr_test": [
                     {"expr": f'count(ALERTS{{alertstate="firing",alertname="{name}"}}) or vector(0)',
                      "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": int(fires)}]},
                     {"expr": f'count(ALERTS{{alertstate="firing",alertname!="{name}"}}) or vector(0)',
                      "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": 0}]},
                 ]}
            ]  # fmt: skip
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    tested = promtool("test", "rules", str(path))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_fleet_without_any_controller_has_no_leader(rules, tmp_path):
    test = {
        "interval": "1m", "input_series": [],
        "alert_rule_test": [{"eval_time": "6m", "alertname": "DormouseNoLeader", "exp_alerts": [
            {"exp_labels": {"severity": "critical"}, "exp_annotations": {
                "summary": "No controller leads",
                "description": "No sandbox is assigned to a node, and none that is deleted goes away. "
                               "Those that run, run on.",
            }}]}],
    }  # fmt: skip
    path = tmp_path / "test.yaml"
    path.write_text(json.dumps({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}))
    tested = promtool("test", "rules", str(path))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_alerts_ask_the_jobs_that_the_monitors_make(rendered):
    # The operator calls a PodMonitor's job <namespace>/<name>, and a ServiceMonitor's as its Service.
    monitor = the(rendered, "PodMonitor", "dormouse-agent")
    assert f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}" == AGENT_JOB
    assert "jobLabel" not in monitor["spec"]
    assert the(rendered, "Service", CONTROLLER_JOB)["spec"]["ports"][0]["name"] == "metrics"
    assert the(rendered, "ServiceMonitor", "dormouse-controller")["spec"]["endpoints"][0]["port"] == "metrics"
    relabeling = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0]
    assert relabeling == {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"}


def test_every_expression_of_the_dashboard_is_one(tmp_path):
    expressions = [
        each.replace("$__rate_interval", "5m").replace("$instance", "x") for each in monitoring.dashboard_expressions()
    ]
    groups = [{"name": "panels", "rules": [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(expressions)]}]
    path = tmp_path / "panels.yaml"
    path.write_text(json.dumps({"groups": groups}))
    checked = promtool("check", "rules", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(expressions)} rules found" in checked.stdout


def test_the_dashboard_is_whole(rendered):
    config = the(rendered, "ConfigMap", "dormouse-dashboard")
    assert json.loads(config["data"]["dormouse.json"]) == monitoring.dashboard()
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    panels = monitoring.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, line) for column in range(x, x + w) for line in range(y, y + h)}
        assert not cells & taken and x + w <= 24, panel["title"]
        taken |= cells
    variables = {variable["name"] for variable in monitoring.dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(panels))) - {"__rate_interval"}
    assert used == variables


def test_every_metric_that_is_asked_for_exists(control_plane, tmp_path):
    """The controller's as it serves them; the agent's by name: tests/e2e/test_monitoring.py looks at a running one."""
    asked = monitoring.asked_for()
    assert {"dormouse_sandboxes", "dormouse_sandboxes_waiting", "workqueue_depth"} <= asked
    controller = Controller(control_plane, tmp_path)
    controller.start()

    def served() -> set[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{controller.metrics_port}/metrics", timeout=10) as page:
            return monitoring.exposed(page.read().decode())

    try:
        # The one appears when it leads, the other with its first request.
        its_own = {"dormouse_sandboxes_waiting", "leader_election_master_status", "rest_client_requests_total"}
        eventually(lambda: its_own <= served(), "the controller leads", 60, controller.log_tail)
        assert asked - served() - monitoring.in_the_sources() == set()
    finally:
        controller.stop()
