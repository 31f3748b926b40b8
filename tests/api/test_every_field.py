"""Every field acts: each of a spec is carried out by some line of controller or agent, and each of a status, each condition
and each reason is written by one. The lines are named here: a field without one fails, and one whose line is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
AGENT = "node-agent/sandbox/"
PLAN, STATUS, CLONE = AGENT + "plan.cc", AGENT + "status.cc", AGENT + "agent_clone.cc"
MACHINE, VMM = "node-agent/machine/machine_linux.cc", "node-agent/machine/machine_vmm.cc"
NEXT, PLACEMENT = "controller/lifecycle/next_step.cc", "controller/placement/placement.cc"
TEMPLATE, KEPT = "controller/templates/template_step.cc", AGENT + "template_status.cc"
NODE = "node-agent/node/node_status.cc"
SIZES = (MACHINE, "record.resources = sandbox.EffectiveResources()")
VARIABLE = (VMM, "request.env.emplace_back(variable.name, variable.value)")
SLEPT = (STATUS, "status.snapshot = api::SandboxStatus::Snapshot{")
STAGES = (STATUS, "in.record.capture->stages}")
USED = (STATUS, "status.storage = api::SandboxStatus::Storage{")
NEEDS = (KEPT, "status->compatibility = api::SnapshotTemplateStatus::Compatibility{")
FAILURE = (KEPT, "api::SnapshotTemplateStatus::Failure{now")

# By kind and path: the file that carries the field out, or writes it, and a piece of the line that does.
LINES: dict[str, dict[str, tuple[str, str]]] = {
    "sandboxes": {
        "spec.source.image.name": (MACHINE, "images_.Resolve(sandbox.spec.image)"),
        "spec.source.snapshotTemplate.name": (CLONE, "FindByName(sandbox.meta.ns, sandbox.spec.snapshot_template)"),
        "spec.resources.cpu": SIZES,
        "spec.resources.memory": SIZES,
        "spec.disk.size": (MACHINE, "sandbox.spec.disk_bytes.value_or(image_bytes)"),
        "spec.command": (VMM, "argv = spec.workload.command"),
        "spec.args": (VMM, "spec.workload.args.begin()"),
        "spec.env.name": VARIABLE,
        "spec.env.value": VARIABLE,
        "spec.workingDir": (VMM, "request.working_dir = spec.workload.working_dir"),
        "spec.user": (VMM, "request.user = spec.workload.user"),
        "spec.dns.nameservers": (VMM, "request.dns = {spec.dns.nameservers"),
        "spec.dns.searches": (VMM, "spec.dns.searches"),
        "spec.dns.options": (VMM, "spec.dns.options}"),
        "spec.operatingMode": (PLAN, "desired.mode == api::OperatingMode::kSuspended"),
        "spec.restartedAt": (PLAN, "desired.restarted_at > record.restarted_at"),
        "spec.terminationGracePeriodSeconds": (VMM, "spec.termination_grace"),
        "spec.idle.timeout": (AGENT + "agent.cc", "idle_.Watch(record.uid, sandbox.spec.idle->timeout)"),
        "spec.idle.action": (NEXT, "sandbox.spec.idle->action == api::IdleAction::kDelete"),
        "spec.bootSnapshot": (CLONE, "!spec.boot_snapshot"),
        "spec.lifecycle.shutdownTime": (NEXT, "HasCome(*life.shutdown_time"),
        "spec.lifecycle.ttlAfterFinished": (NEXT, "*life.ttl_after_finished, now"),
        "spec.lifecycle.shutdownPolicy": (NEXT, "if (life.delete_at_shutdown)"),
        "spec.restartPolicy": (PLAN, "ShouldRestart(desired.restart_policy"),
        "spec.network.egress": (MACHINE, "EgressOf(spec.network.egress)"),
        "spec.network.allow.cidr": (MACHINE, "spec.network.allow_cidrs"),
        "spec.network.deny.cidr": (MACHINE, "spec.network.deny_cidrs"),
        "spec.nodeSelector": ("controller/placement/demand.cc", "demand.node_selector = sandbox.spec.node_selector"),
        "spec.tolerations.key": (PLACEMENT, "toleration.key != taint.key"),
        "spec.tolerations.operator": (PLACEMENT, "toleration.op == kExists"),
        "spec.tolerations.value": (PLACEMENT, "toleration.value == taint.value"),
        "spec.tolerations.effect": (PLACEMENT, "toleration.effect != taint.effect"),
        "status.observedGeneration": (STATUS, "status.observed_generation ="),
        "status.phase": (STATUS, "status.phase = PhaseOf("),
        "status.nodeName": ("controller/lifecycle/sandbox_controller.cc", "next.node_name = node;"),
        "status.resources.cpu": (STATUS, "status.resources ="),
        "status.resources.memory": (STATUS, "status.resources ="),
        "status.resources.disk": (STATUS, "status.disk_bytes ="),
        "status.exitCode": (STATUS, "status.exit_code ="),
        "status.startedAt": (STATUS, "status.started_at ="),
        "status.suspendedAt": (STATUS, "status.suspended_at ="),
        "status.finishedAt": (STATUS, "status.finished_at ="),
        "status.lastActiveTime": (STATUS, "status.last_active_time = in.idle->last_active"),
        "status.idleDeadline": (STATUS, "status.idle_deadline ="),
        "status.restartCount": (STATUS, "status.restart_count ="),
        "status.network.nodeIP": (STATUS, "status.network = {in.node_ip"),
        "status.network.hostIP": (STATUS, "in.host_address, net::kGuestAddress}"),
        "status.network.guestIP": (STATUS, "in.host_address, net::kGuestAddress}"),
        "status.vm.hypervisor": (STATUS, "status.vm = {in.vmm.name"),
        "status.vm.version": (STATUS, "in.vmm.version"),
        "status.vm.startMode": (STATUS, "StartModeOf(sandbox, in)"),
        "status.vm.bootToReady": (STATUS, "status.vm.boot_to_ready ="),
        "status.snapshot.memoryBytes": SLEPT,
        "status.snapshot.writtenBytes": SLEPT,
        "status.snapshot.pauseWindow": SLEPT,
        "status.snapshot.generation": SLEPT,
        **{f"status.snapshot.stages.{stage}": STAGES for stage in ("prepare", "freeze", "pause", "state", "memory", "disk", "sync")},
        "status.storage.cowUsedBytes": USED,
        "status.storage.cowUsedPercent": USED,
    },
    "snapshottemplates": {
        "spec.source.sandbox.name": (TEMPLATE, "object.source"),
        "spec.sourceAfterCapture": (TEMPLATE, "object.source_after_capture != api::SourceAfterCapture::kResume"),
        "spec.failureDeadline": (TEMPLATE, "object.meta.creation_time + object.failure_deadline"),
        "spec.ttl": (TEMPLATE, "*unused_since + object.ttl"),
        "spec.deletionPolicy": (AGENT + "template_keeper.cc", "live->deletion_policy == api::DeletionPolicy::kRetain"),
        "status.observedGeneration": (KEPT, "status.observed_generation ="),
        "status.nodeName": ("controller/templates/template_controller.cc", ".node_name = node"),
        "status.phase": (KEPT, "status.phase = PhaseOf("),
        "status.readyToUse": (KEPT, "status.ready_to_use ="),
        "status.creationTime": (KEPT, "status->creation_time ="),
        "status.error.time": FAILURE,
        "status.error.message": FAILURE,
        "status.sourceUID": (KEPT, "status->source_uid ="),
        "status.nodes": (KEPT, "status->nodes ="),
        "status.references": (KEPT, "status.references ="),
        "status.memoryBytes": (KEPT, "status->memory_bytes ="),
        "status.diskBytes": (KEPT, "status->disk_bytes ="),
        "status.allocatedBytes": (KEPT, "status->allocated_bytes ="),
        "status.pauseWindow": (KEPT, "status->pause_window ="),
        "status.resources.cpu": (KEPT, "status->resources ="),
        "status.resources.memory": (KEPT, "status->resources ="),
        **{
            f"status.compatibility.{part}": NEEDS
            for part in ("hypervisor", "version", "formatVersion", "cpu", "kernelDigest", "imageDigest", "guestVersion")
        },
    },
    "sandboxnodes": {
        "spec.unschedulable": (PLACEMENT, "node.unschedulable"),
        "spec.taints.key": (PLACEMENT, "toleration.key != taint.key"),
        "spec.taints.value": (PLACEMENT, "toleration.value == taint.value"),
        "spec.taints.effect": (PLACEMENT, "taint.effect == kPreferNoSchedule"),
        **{f"status.capacity.{part}": (NODE, f"capacity.{name} =") for part, name in (("cpu", "vcpus"), ("memory", "memory_bytes"), ("disk", "disk_bytes"))},
        **{f"status.allocated.{part}": (NODE, f"allocated.{name} +=") for part, name in (("cpu", "vcpus"), ("memory", "memory_bytes"), ("disk", "disk_bytes"))},
        "status.capacity.running": ("src/common/api/sandbox_node.cc", '{"running", amount.running}'),
        "status.capacity.sleeping": ("src/common/api/sandbox_node.cc", '{"sleeping", amount.sleeping}'),
        "status.allocated.running": (NODE, "++allocated.running"),
        "status.allocated.sleeping": (NODE, "++allocated.sleeping"),
        "status.hypervisor.name": (NODE, "status.hypervisor ="),
        "status.hypervisor.version": (NODE, "status.hypervisor_version ="),
        "status.kernelVersion": (NODE, "status.kernel_version ="),
        "status.cpuModel": (NODE, "status.cpu_model ="),
        "status.images.name": (NODE, "status.images ="),
        "status.images.digest": (NODE, "status.images ="),
        "status.images.sizeBytes": (NODE, "status.images ="),
        "status.templates": (NODE, "status.templates ="),
        "status.storage.fileSystem": (NODE, "status.file_system ="),
        "status.storage.reflink": (NODE, "status.reflink ="),
        "status.endpoint": (NODE, "status.endpoint ="),
    },
}  # fmt: skip
# The access API's, which is not here yet. A field that gets its line moves up.
AWAITED = {
    "sandboxes": {"spec.idle.resumeOnAccess", "spec.network.ports.name", "spec.network.ports.port", "spec.network.ports.protocol"},
    "snapshottemplates": set(),
    "sandboxnodes": set(),
}


def leaves(schema: dict, path: str) -> Iterator[str]:
    """The fields below, but for conditions, which have a test of their own."""
    if "items" in schema:
        schema = schema["items"]
    if path.endswith(".conditions"):
        return
    if "properties" not in schema:
        yield path
        return
    for name, below in schema["properties"].items():
        yield from leaves(below, f"{path}.{name}")


def source(path: str) -> str:
    """Without its comments: a line that is commented out carries nothing out."""
    return re.sub(r"//.*", "", (ROOT / path).read_text())


def product(*folders: str) -> str:
    """All that is no test."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.cc"))]
    return "\n".join(source(str(path.relative_to(ROOT))) for path in files if not path.stem.endswith("_test"))


@pytest.mark.parametrize("plural", LINES)
def test_each_field_is_carried_out_or_written(admin, plural):
    crd = admin.client.get(f"{CRDS}/{plural}.dormouse.dev").body
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    fields = {field for part in ("spec", "status") for field in leaves(schema[part], part)}
    known = LINES[plural]
    assert fields - set(known) - AWAITED[plural] == set(), "nothing is said to read or write these"
    assert (set(known) | AWAITED[plural]) - fields == set(), "the schema has no such fields"
    gone = [f"{field}: {path} has no {text!r}" for field, (path, text) in known.items() if text not in source(path)]
    assert not gone, "\n".join(gone)


def test_each_field_of_a_status_is_sent():
    sent = product("src/common/api") + source("src/common/api/sandbox.h")  # where the stages have their names
    for plural, known in LINES.items():
        for field in known:
            leaf = field.rpartition(".")[2]
            assert field.startswith("spec.") or f'"{leaf}"' in sent, f"{plural}: {field}"


def test_each_condition_is_written():
    declared = product("src/common/api") + "".join(path.read_text() for path in (ROOT / "src/common/api").glob("*.h"))
    written = product("controller", "node-agent")
    names = set()
    for block in re.findall(r"namespace condition \{(.*?)\}  // namespace condition", declared, re.S):
        names |= set(re.findall(r"char (k\w+)\[\]", block))
    assert len(names) > 10
    for name in sorted(names):
        assert re.search(rf"condition::{name}\b", written), f"nothing writes the condition {name}"


def test_each_reason_is_written():
    names = re.findall(r"string_view (k\w+) =", (ROOT / "src/common/api/reasons.h").read_text())
    written = product("controller", "node-agent")
    assert len(names) > 40
    unwritten = [name for name in names if not re.search(rf"reasons::{name}\b", written)]
    assert unwritten == [], "docs/reasons.md explains what nobody says"
