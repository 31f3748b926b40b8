"""What users may write: each rule with what it admits, what it refuses, and the words in which it
does."""

from __future__ import annotations

import pytest
from conftest import condition, sandbox, sandbox_node, template

LONG = "x" * 64
NUL = "a\0b"


def source(**kinds) -> dict:
    return {"source": kinds}


IMAGE = {"image": {"name": "debian-12"}}

GOOD_SANDBOXES = {
    "the least": {},
    "from a template": source(snapshotTemplate={"name": "warm-python"}),
    "a dotted image": source(image={"name": "Ubuntu_24.04"}),
    "a vendor's image": source(image={"name": "Fedora-Cloud-Base-Generic.x86_64-40-1.14"}),
    "the longest image": source(image={"name": "a" * 251}),
    "all the words that a guest can be sent": {
        "command": ["sh"],
        "args": ["x" * 16000, "x" * (24 * 1024 - 16002)],
        "env": [{"name": "A", "value": "\x1b" * 5000}, {"name": "B", "value": "\n" * 9574}],
    },
    "one vCPU": {"resources": {"cpu": 1}},
    "64 vCPUs": {"resources": {"cpu": 64, "memory": "64Mi"}},
    "decimal memory": {"resources": {"memory": "1.5Gi"}},
    "memory in bytes": {"resources": {"memory": "134217728"}},
    "a disk": {"disk": {"size": "5Gi"}},
    "a workload": {
        "command": ["/bin/sh", "-c"],
        "args": ["echo $HOME; exit 1", ""],
        "env": [{"name": "LOG_LEVEL", "value": "a=b \n ü"}, {"name": "EMPTY"}],
        "workingDir": "/srv",
        "user": "app",
    },
    "a numeric user and group": {"user": "1000:1000"},
    "resolvers": {
        "dns": {
            "nameservers": ["203.0.113.53", "2001:db8::53"],
            "searches": ["corp.example", "a_b.example."],
            "options": ["ndots:2", "edns0"],
        }
    },
    "idle": {"idle": {"timeout": "1h30m10s", "action": "Delete", "resumeOnAccess": True}},
    "the longest durations": {"idle": {"timeout": "999999h9999999m999999999s"}},
    "a lifecycle": {
        "lifecycle": {
            "shutdownTime": "2030-01-02T15:04:05Z",
            "ttlAfterFinished": "0s",
            "shutdownPolicy": "Delete",
        }
    },
    "a shutdown by another zone's clock": {"lifecycle": {"shutdownTime": "2030-01-02T15:04:05+09:00"}},
    "a stopped machine": {"operatingMode": "Stopped", "restartedAt": "2030-01-02T15:04:05.123456Z"},
    "no grace": {"terminationGracePeriodSeconds": 0},
    "the longest grace": {"terminationGracePeriodSeconds": 3600},
    "a network": {
        "network": {
            "egress": "Open",
            "allow": [{"cidr": "10.0.0.0/8"}, {"cidr": "2001:db8::/32"}],
            "deny": [{"cidr": "0.0.0.0/0"}],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53},
            ],
        }
    },
    "the highest port": {"network": {"ports": [{"name": "a", "port": 65535}]}},
    "placement": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}],
    },
}

ONE_SOURCE = "must have exactly one of image and snapshotTemplate: write image: {name: ...}"
CPU = "spec.resources.cpu: Invalid value: {}: must be a whole number of vCPUs from 1 to 64, without quotes or a unit"
MEMORY = "must be an amount of memory from 64Mi to 16Ti, with its unit, such as 512Mi or 2Gi"
SIZE = "must be an amount of storage from 1Mi to 64Ti, with its unit, such as 5Gi"
DURATION = "must be a duration of at least 1s, such as 90s, 10m or 1h30m; for never, leave out idle"
IMAGE_NAME = (
    "must be the name of an image, not a path: letters, digits, '-', '_' and '.', such as debian-12"
)
NO_NUL = "must not contain a NUL character: leave it out"
PORT = "must be a port number from 1 to 65535, such as 8080"
RANGE = "must be an address range with its prefix length, such as 203.0.113.0/24 or 2001:db8::/32"


def ports(*items: dict) -> dict:
    return {"network": {"ports": list(items)}}


def allow(cidr: str) -> dict:
    return {"network": {"allow": [{"cidr": cidr}]}}


BAD_SANDBOXES = {
    "no source": (source(), f"spec.source: Invalid value: {{}}: {ONE_SOURCE}"),
    "two sources": (source(**IMAGE, snapshotTemplate={"name": "t"}), ONE_SOURCE),
    "an image's path": (
        source(image={"name": "../../etc/passwd"}),
        f"spec.source.image.name: {{}}: {IMAGE_NAME}",
    ),
    "an image whose file has too long a name": (
        source(image={"name": "a" * 252}),
        "spec.source.image.name: Too long",
    ),
    "more arguments than a guest can be sent": (
        {"command": ["sh"], "args": ["x" * 16000, "ü" * 4288]},
        "spec.args: Invalid value: {}: must be at most 24 KiB together with command",
    ),
    "more environment than a guest can be sent": (
        {"env": [{"name": "A", "value": "x" * 16000}, {"name": "B", "value": "x" * 8575}]},
        "spec.env: Invalid value: {}: must be at most 24 KiB in all",
    ),
    "control characters, which are long on their way": (
        {"env": [{"name": "A", "value": "\x1b" * 8192}]},
        "a value with control characters counts three times",
    ),
    "an empty image": (source(image={"name": ""}), IMAGE_NAME),
    "an image without a name": (source(image={}), "spec.source.image.name: Required value"),
    "a template's path": (
        source(snapshotTemplate={"name": "ns/t"}),
        "must be the name of a SnapshotTemplate in this",
    ),
    "no vCPU": ({"resources": {"cpu": 0}}, CPU),
    "65 vCPUs": ({"resources": {"cpu": 65}}, CPU),
    "quoted vCPUs": ({"resources": {"cpu": "2"}}, CPU),
    "millis": ({"resources": {"cpu": "500m"}}, CPU),
    "half a vCPU": ({"resources": {"cpu": 0.5}}, "spec.resources.cpu"),
    "little memory": ({"resources": {"memory": "63Mi"}}, f"spec.resources.memory: {{}}: {MEMORY}"),
    "memory without a unit": ({"resources": {"memory": 512}}, MEMORY),
    "memory in a wrong unit": ({"resources": {"memory": "512MB"}}, MEMORY),
    "memory that is no number": ({"resources": {"memory": "much"}}, MEMORY),
    "negative memory": ({"resources": {"memory": "-1Gi"}}, MEMORY),
    "endless memory": ({"resources": {"memory": "99999999999999Gi"}}, MEMORY),
    "no disk": ({"disk": {"size": "0"}}, f"spec.disk.size: {{}}: {SIZE}"),
    "a disk that is no number": ({"disk": {"size": "5 GB"}}, SIZE),
    "arguments without a command": (
        {"args": ["-v"]},
        "spec.args: {}: needs command: write the program in command",
    ),
    "an empty program": (
        {"command": [""]},
        "must begin with the program's name or path, such as /usr/bin/python3",
    ),
    "a NUL in the command": ({"command": [NUL]}, f"spec.command: {{}}: {NO_NUL}"),
    "a NUL in an argument": ({"command": ["a"], "args": [NUL]}, f"spec.args: {{}}: {NO_NUL}"),
    "a NUL in a variable": (
        {"env": [{"name": "A", "value": NUL}]},
        f"spec.env[0].value: {{}}: {NO_NUL}",
    ),
    "a variable's name": (
        {"env": [{"name": "A=B"}]},
        "must be the name of a variable: letters, digits",
    ),
    "a variable twice": ({"env": [{"name": "A"}, {"name": "A"}]}, "spec.env[1]: Duplicate value"),
    "a relative directory": (
        {"workingDir": "srv"},
        "must be an absolute path in the guest, such as /srv",
    ),
    "a user with a space": (
        {"user": "a b"},
        "must be a user, or a user and a group, by name or number, such as app",
    ),
    "a nameserver by name": ({"dns": {"nameservers": ["dns.example"]}}, "must be an IP address, such as 203.0.113.53"),
    "four nameservers": ({"dns": {"nameservers": ["9.9.9.9"] * 4}}, "spec.dns.nameservers: Too many"),
    "a search that is no domain": ({"dns": {"searches": ["a b"]}}, "must be a domain name, such as corp.example"),
    "a resolver's option": ({"dns": {"options": ["ndots: 2"]}}, "must be an option of resolv.conf, such as ndots:2"),
    "idle for no time": ({"idle": {"timeout": "0s"}}, f"spec.idle.timeout: {{}}: {DURATION}"),
    "idle for an empty time": ({"idle": {"timeout": ""}}, DURATION),
    "idle for a bare number": ({"idle": {"timeout": "10"}}, DURATION),
    "idle for a negative time": ({"idle": {"timeout": "-5m"}}, DURATION),
    "idle for more than there is": ({"idle": {"timeout": "99999999999h"}}, DURATION),
    "idle without a time": ({"idle": {}}, "spec.idle.timeout: Required value"),
    "a ttl that is no time": (
        {"lifecycle": {"ttlAfterFinished": "soon"}},
        "must be a duration, such as 0s, 10m or 1h30m; for never, leave it out",
    ),
    "a shutdown that is no time": (
        {"lifecycle": {"shutdownTime": "tomorrow"}},
        "spec.lifecycle.shutdownTime",
    ),
    "a mode": ({"operatingMode": "Paused"}, 'supported values: "Running", "Suspended", "Stopped"'),
    "a grace of an hour and a second": (
        {"terminationGracePeriodSeconds": 3601},
        "must be a number of seconds from 0 to 3600, such as 30",
    ),
    "a grace that is negative": ({"terminationGracePeriodSeconds": -1}, "must be a number of seconds from 0"),
    "a restart that is no time": ({"restartedAt": "now"}, "spec.restartedAt"),
    "a restart policy": (
        {"restartPolicy": "Sometimes"},
        'supported values: "Never", "OnFailure", "Always"',
    ),
    "an egress": ({"network": {"egress": "All"}}, 'supported values: "Restricted", "Open", "None"'),
    "an address without prefix": (allow("10.0.0.1"), f"spec.network.allow[0].cidr: {{}}: {RANGE}"),
    "an IPv6 prefix too long": (allow("2001:db8::/129"), RANGE),
    "words for a range": (allow("everywhere"), RANGE),
    "bits behind the prefix": (
        allow("10.1.2.3/8"),
        "has bits set behind its prefix length: write the first address",
    ),
    "port 0": (ports({"name": "a", "port": 0}), f"spec.network.ports[0].port: {{}}: {PORT}"),
    "port 65536": (ports({"name": "a", "port": 65536}), PORT),
    "a port's name": (
        ports({"name": "HTTP", "port": 80}),
        "must be lower case letters, digits and '-', such as http",
    ),
    "a port's name twice": (
        ports({"name": "a", "port": 1}, {"name": "a", "port": 2}),
        "spec.network.ports[1]: Duplicate",
    ),
    "a port twice": (
        ports({"name": "a", "port": 1}, {"name": "b", "port": 1}),
        "spec.network.ports: {}: must not have the same port and protocol twice: leave one of them out",
    ),
    "a protocol": (
        ports({"name": "a", "port": 1, "protocol": "SCTP"}),
        'supported values: "TCP", "UDP"',
    ),
    "a toleration of nothing": (
        {"tolerations": [{}]},
        "must have a key, or operator: Exists to tolerate every taint",
    ),
    "a toleration of a value": (
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "must not have a value with operator: Exists: leave out value, or write operator: Equal",
    ),
    "a field that is not there": ({"resource": {}}, 'unknown field "spec.resource"'),
}


def says(message: str, expected: str) -> bool:
    """`{}` stands for the value, which the API server prints after the path."""
    parts = expected.split("{}") if ": {}: " in expected else [expected]
    position = 0
    for part in parts:
        position = message.find(part, position)
        if position < 0:
            return False
    return True


@pytest.mark.parametrize("spec", GOOD_SANDBOXES.values(), ids=GOOD_SANDBOXES.keys())
def test_a_good_sandbox_is_admitted(admin, spec):
    answer = admin.create("sandboxes", sandbox(**spec), dryRun="All")
    assert answer.status == 201, answer.message


@pytest.mark.parametrize(("spec", "message"), BAD_SANDBOXES.values(), ids=BAD_SANDBOXES.keys())
def test_a_bad_sandbox_is_refused_in_our_words(admin, spec, message):
    answer = admin.create("sandboxes", sandbox(**spec), dryRun="All")
    assert answer.status in (400, 422), f"{answer.status} {answer.message}"
    assert says(answer.message, message), answer.message
    assert "evaluation" not in answer.message and "no such key" not in answer.message


def test_a_name_longer_than_a_hostname_is_refused(admin):
    assert admin.create("sandboxes", sandbox("x" * 63), dryRun="All").status == 201
    answer = admin.create("sandboxes", sandbox(LONG), dryRun="All")
    assert (
        "metadata.name must be at most 63 characters, as it becomes the guest's hostname"
        in answer.message
    )
    answer = admin.create("snapshottemplates", template(LONG), dryRun="All")
    assert "metadata.name must be at most 63 characters: choose a shorter name" in answer.message


def test_a_sandbox_without_a_spec_is_refused(admin):
    body = sandbox()
    del body["spec"]
    assert "spec: Required value" in admin.create("sandboxes", body, dryRun="All").message


def test_what_a_sandbox_leaves_out_has_the_documented_defaults(admin):
    spec = admin.create("sandboxes", sandbox(idle={"timeout": "1m"}), dryRun="All").body["spec"]
    assert spec == {
        "source": IMAGE,
        "operatingMode": "Running",
        "terminationGracePeriodSeconds": 30,
        "bootSnapshot": "Auto",
        "network": {"egress": "Restricted"},
        "idle": {"timeout": "1m", "action": "Suspend", "resumeOnAccess": False},
    }
    # An empty network is as closed as none, and a policy of its own keeps what it does not name.
    assert (
        admin.create("sandboxes", sandbox(network={}), dryRun="All").body["spec"]["network"][
            "egress"
        ]
        == "Restricted"
    )
    made = admin.create(
        "sandboxes",
        sandbox(network={"ports": [{"name": "a", "port": 1}]}, lifecycle={}),
        dryRun="All",
    )
    assert made.body["spec"]["network"] == {
        "egress": "Restricted",
        "ports": [{"name": "a", "port": 1, "protocol": "TCP"}],
    }
    assert made.body["spec"]["lifecycle"] == {"shutdownPolicy": "Retain"}


IMMUTABLE = {
    "source": ({"source": {"image": {"name": "other"}}}, "spec.source"),
    "the kind of source": (
        {"source": {"image": None, "snapshotTemplate": {"name": "t"}}},
        "spec.source",
    ),
    "resources": ({"resources": {"cpu": 3}}, "spec.resources"),
    "resources taken away": ({"resources": None}, "spec.resources"),
    "disk": ({"disk": {"size": "6Gi"}}, "spec.disk"),
    "disk taken away": ({"disk": None}, "spec.disk"),
    "command": ({"command": ["b"]}, "spec.command"),
    "command and arguments taken away": ({"command": None, "args": None}, "spec.command"),
    "arguments": ({"args": ["y"]}, "spec.args"),
    "a variable": ({"env": [{"name": "A", "value": "2"}]}, "spec.env"),
    "the directory": ({"workingDir": "/srv"}, "spec.workingDir"),
    "the user": ({"user": "other"}, "spec.user"),
    "the resolvers": ({"dns": {"nameservers": ["9.9.9.9"]}}, "spec.dns"),
}
# What a sandbox was made with whose fields are then changed.
FIXED = {
    "resources": {"cpu": 2},
    "disk": {"size": "5Gi"},
    "command": ["a"],
    "args": ["x"],
    "env": [{"name": "A", "value": "1"}],
    "workingDir": "/usr",
    "user": "app",
    "dns": {"options": ["ndots:1"]},
}


@pytest.mark.parametrize(("change", "field"), IMMUTABLE.values(), ids=IMMUTABLE.keys())
def test_what_is_fixed_cannot_be_changed(admin, created, change, field):
    created("sandboxes", sandbox("fixed", **FIXED))
    answer = admin.merge("sandboxes", "fixed", {"spec": change})
    assert answer.status == 422
    assert says(answer.message, field + ": {}: is immutable: "), answer.message


def test_what_is_fixed_cannot_be_added_later(admin, created):
    created("sandboxes", sandbox("bare"))
    for change in ({"command": ["a"], "args": ["x"]}, *({name: FIXED[name]} for name in FIXED if name != "args")):
        answer = admin.merge("sandboxes", "bare", {"spec": change})
        assert answer.status == 422 and "is immutable: put back what it was" in answer.message


def test_what_is_not_fixed_can_be_changed(admin, created):
    created("sandboxes", sandbox("free", resources={"cpu": 2}))
    change = {
        "operatingMode": "Suspended",
        "idle": {"timeout": "5m"},
        "restartPolicy": "Always",
    }
    answer = admin.merge("sandboxes", "free", {"spec": change})
    assert answer.status == 200, answer.message
    assert answer.body["metadata"]["generation"] == 2


def test_status_is_written_apart_from_spec(admin, created):
    created("sandboxes", sandbox("apart"))
    answer = admin.merge(
        "sandboxes",
        "apart",
        {"spec": {"operatingMode": "Suspended"}, "status": {"phase": "Running"}},
        "status",
    )
    assert answer.body["status"] == {"phase": "Running"}
    assert (
        answer.body["spec"]["operatingMode"] == "Running"
        and answer.body["metadata"]["generation"] == 1
    )
    answer = admin.merge("sandboxes", "apart", {"status": {"phase": "Suspended"}})
    assert answer.body["status"] == {"phase": "Running"}


FULL_SANDBOX_STATUS = {
    "observedGeneration": 1,
    "phase": "Running",
    "nodeName": "node-a",
    "conditions": [
        condition(kind) for kind in ("Ready", "Scheduled", "GuestReady", "StorageHealthy")
    ],
    "resources": {"cpu": 1, "memory": "512Mi", "disk": "5Gi"},
    "exitCode": 137,
    "startedAt": "2026-01-02T03:04:05Z",
    "suspendedAt": "2026-01-02T03:04:05Z",
    "finishedAt": "2026-01-02T03:04:05Z",
    "lastActiveTime": "2026-01-02T03:04:05.123456Z",
    "idleDeadline": "2026-01-02T03:14:05Z",
    "restartCount": 2,
    "network": {"nodeIP": "192.0.2.1", "hostIP": "10.201.0.5", "guestIP": "169.254.0.21"},
    "vm": {
        "hypervisor": "cloud-hypervisor",
        "version": "v53.0",
        "startMode": "Boot",
        "bootToReady": "4.3s",
    },
    "snapshot": {
        "memoryBytes": 1 << 40,
        "writtenBytes": 4096,
        "pauseWindow": "35ms",
        "generation": 7,
        "stages": {
            "prepare": "210ms",
            "freeze": "4ms",
            "pause": "2ms",
            "state": "8ms",
            "memory": "20ms",
            "disk": "14ms",
            "sync": "5ms",
        },
    },
    "storage": {"cowUsedBytes": 1 << 33, "cowUsedPercent": 12},
}


def test_the_status_of_a_sandbox_holds_all_that_the_api_names(controller, created):
    created("sandboxes", sandbox("full"))
    answer = controller.apply_status("sandboxes", "full", FULL_SANDBOX_STATUS)
    assert answer.ok, answer.message
    assert answer.body["status"] == FULL_SANDBOX_STATUS


def test_each_writer_of_a_status_keeps_its_own_conditions(admin, controller, created):
    created("sandboxes", sandbox("shared"))
    placed = {"nodeName": "node-a", "conditions": [condition("Scheduled", reason="Scheduled")]}
    assert controller.apply_status("sandboxes", "shared", placed, "dormouse-controller").ok
    assert admin.apply_status(
        "sandboxes", "shared", {"phase": "Starting", "conditions": [condition("Ready", "False")]}
    ).ok
    status = admin.apply_status(
        "sandboxes", "shared", {"phase": "Running", "conditions": [condition("Ready")]}
    ).body["status"]
    assert status["nodeName"] == "node-a"
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "Scheduled": "True",
        "Ready": "True",
    }


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Sleeping"},
        {"conditions": [{"type": "Ready", "status": "Yes"}]},
        {"vm": {"startMode": "Magic"}},
    ],
)
def test_a_status_that_makes_no_sense_is_refused(admin, created, status):
    created("sandboxes", sandbox("nonsense"))
    assert admin.merge("sandboxes", "nonsense", {"status": status}, "status").status == 422


# --- templates and nodes --------------------------------------------------------------------------


def test_what_a_template_leaves_out_has_the_documented_defaults(admin):
    assert admin.create("snapshottemplates", template(), dryRun="All").body["spec"] == {
        "source": {"sandbox": {"name": "s1"}},
        "sourceAfterCapture": "Resume",
        "failureDeadline": "5m",
        "ttl": "0s",
        "deletionPolicy": "Delete",
    }


BAD_TEMPLATES = {
    "no sandbox": ({"source": {}}, "spec.source.sandbox: Required value"),
    "a sandbox's path": (
        {"source": {"sandbox": {"name": "../s1"}}},
        "spec.source.sandbox.name: {}: must be the name of a Sandbox in this namespace: lower case letters",
    ),
    "an afterlife": (
        {"sourceAfterCapture": "Stop"},
        'supported values: "Resume", "Suspend", "Delete"',
    ),
    "a deadline of nothing": (
        {"failureDeadline": "0s"},
        "must be a duration of at least 1s, such as 30s or 5m",
    ),
    "a deadline of words": (
        {"failureDeadline": "five minutes"},
        "must be a duration of at least 1s, such as 30s or 5m",
    ),
    "a ttl of words": (
        {"ttl": "forever"},
        "must be a duration, such as 30m or 24h; 0s keeps the template",
    ),
    "a policy": ({"deletionPolicy": "Keep"}, 'supported values: "Delete", "Retain"'),
}


@pytest.mark.parametrize(("spec", "message"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES.keys())
def test_a_bad_template_is_refused_in_our_words(admin, spec, message):
    answer = admin.create("snapshottemplates", template(**spec), dryRun="All")
    assert answer.status == 422 and says(answer.message, message), answer.message


def test_a_template_is_immutable_but_for_ttl_and_deletion_policy(admin, created):
    created("snapshottemplates", template("frozen"))
    for field, value in (
        ("source", {"sandbox": {"name": "s2"}}),
        ("sourceAfterCapture", "Delete"),
        ("failureDeadline", "1m"),
    ):
        answer = admin.merge("snapshottemplates", "frozen", {"spec": {field: value}})
        assert answer.status == 422 and says(
            answer.message, f"spec.{field}: {{}}: is immutable"
        ), answer.message
    answer = admin.merge(
        "snapshottemplates", "frozen", {"spec": {"ttl": "24h", "deletionPolicy": "Retain"}}
    )
    assert answer.status == 200, answer.message


def test_the_status_of_a_template_holds_all_that_the_api_names(controller, created):
    created("snapshottemplates", template("whole"))
    status = {
        "observedGeneration": 1,
        "nodeName": "node-a",
        "phase": "Ready",
        "readyToUse": True,
        "creationTime": "2026-01-02T03:04:05Z",
        "error": {"time": "2026-01-02T03:04:05Z", "message": "no room"},
        "sourceUID": "7c0f3b1e-0000-4000-8000-000000000000",
        "nodes": ["node-a", "node-b"],
        "references": 3,
        "memoryBytes": 1 << 32,
        "diskBytes": 1 << 33,
        "allocatedBytes": 1 << 30,
        "pauseWindow": "35ms",
        "resources": {"cpu": 2, "memory": "4Gi"},
        "compatibility": {
            "hypervisor": "cloud-hypervisor",
            "version": "v53.0",
            "formatVersion": 1,
            "cpu": "Some CPU",
            "kernelDigest": "sha256:00",
            "imageDigest": "sha256:00",
            "guestVersion": "0.1.0",
        },
        "conditions": [condition(kind) for kind in ("Ready", "InUse", "Compatible")],
    }
    answer = controller.apply_status("snapshottemplates", "whole", status)
    assert answer.ok, answer.message
    assert answer.body["status"] == status


def test_the_status_of_a_node_holds_all_that_the_api_names(admin, created):
    created(
        "sandboxnodes",
        sandbox_node("node-full", taints=[{"key": "example.com/gpu", "effect": "NoSchedule"}]),
    )
    amount = {"cpu": 64, "memory": "128Gi", "disk": "1Ti", "running": 3, "sleeping": 5}
    status = {
        "capacity": amount,
        "allocated": amount,
        "hypervisor": {"name": "cloud-hypervisor", "version": "v53.0"},
        "kernelVersion": "6.1.0",
        "cpuModel": "Some CPU",
        "images": [{"name": "debian-12", "digest": "sha256:00", "sizeBytes": 1 << 28}],
        "templates": ["7c0f3b1e-0000-4000-8000-000000000000"],
        "storage": {"fileSystem": "xfs", "reflink": True},
        "endpoint": "192.0.2.1:8443",
        "conditions": [condition(kind) for kind in ("Ready", "DiskPressure", "HypervisorReady", "NetworkReady")],
    }
    answer = admin.apply_status("sandboxnodes", "node-full", status)
    assert answer.ok, answer.message
    assert answer.body["status"] == status
    assert answer.body["spec"]["unschedulable"] is False


def test_a_taint_must_have_a_key_and_a_known_effect(admin):
    answer = admin.create(
        "sandboxnodes", sandbox_node(taints=[{"key": "a b", "effect": "NoSchedule"}]), dryRun="All"
    )
    assert "must be a label key, such as example.com/dedicated" in answer.message
    answer = admin.create(
        "sandboxnodes", sandbox_node(taints=[{"key": "a", "effect": "No"}]), dryRun="All"
    )
    assert 'supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"' in answer.message
