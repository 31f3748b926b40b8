"""Bad input gets a clear answer, and costs nobody else anything."""

from __future__ import annotations

import pytest

from bed.cluster import IMAGES, condition_of
from bed.eventually import eventually
from bed.manifests import sandbox

KIB = 1 << 10


def message(thing: dict, kind: str) -> str:
    return condition_of(thing, kind).get("message", "")


def test_an_image_that_comes_later_is_waited_for(cluster, sandboxes):
    sandboxes(sandbox("early", "late"))
    waiting = cluster.wait_reason("early", "Scheduled", "ImageNotFound")
    assert "late" in message(waiting, "Scheduled") and not waiting["status"].get("nodeName")
    cluster.node.run(f"cp --sparse=always {IMAGES}/busybox.img {IMAGES}/late.img")
    try:
        cluster.wait_ready("early")
    finally:
        cluster.node.run(f"rm -f {IMAGES}/late.img")


def test_a_truncated_image_starts_nothing(cluster, sandboxes):
    cluster.node.run(f"head -c {9 << 20} {IMAGES}/busybox.img >{IMAGES}/cut.img")
    try:
        sandboxes(sandbox("from-cut", "cut"))
        refused = cluster.wait_for(
            "from-cut",
            lambda sbx: {condition_of(sbx, kind).get("reason") for kind in ("Ready", "Scheduled")}
            & {"ImageDamaged", "ImageNotFound"},
            "refused for its image",
        )
        assert not refused["status"].get("startedAt") and cluster.vmm_pid("from-cut") == 0
    finally:
        cluster.node.run(f"rm -f {IMAGES}/cut.img")


def test_a_disk_smaller_than_its_image_is_refused(cluster, sandboxes):
    sandboxes(sandbox("small", "debian-12", disk={"size": "10Mi"}))
    refused = cluster.wait_for(
        "small",
        lambda sbx: "InvalidSpec"
        in {condition_of(sbx, kind).get("reason") for kind in ("Ready", "Scheduled")},
        "InvalidSpec",
    )
    assert "smaller" in message(refused, "Ready") + message(refused, "Scheduled")


def test_what_no_node_has_room_for_waits(cluster, sandboxes):
    sandboxes(sandbox("huge", resources={"cpu": 1, "memory": "1Ti"}))
    waiting = cluster.wait_reason("huge", "Scheduled", "NoCapacity")
    assert not waiting["status"].get("nodeName")


@pytest.mark.parametrize(
    "manifest, words",
    [
        (sandbox("../escape"), "may not contain '/'"),
        (sandbox("a" * 64), "63"),
        (
            sandbox(
                "two-sources", source={"image": {"name": "a"}, "snapshotTemplate": {"name": "b"}}
            ),
            "exactly one",
        ),
        (sandbox("bad-image", "../../etc/passwd"), "image"),
        (sandbox("no-memory", resources={"cpu": 1, "memory": "1Mi"}), "64Mi"),
    ],
    ids=lambda value: value["metadata"]["name"][:12] if isinstance(value, dict) else None,
)
def test_a_malformed_manifest_is_refused_by_the_api_server(cluster, manifest, words):
    import json

    done = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest), check=False)
    assert done.returncode != 0 and words in done.stderr, done.stderr


def test_a_name_may_be_as_long_as_the_api_allows(cluster, sandboxes):
    name = "n" * 63
    sandboxes(sandbox(name))
    cluster.wait_ready(name)


def test_what_the_machines_disk_lacks_is_the_manifests_fault_and_ends_it(cluster, sandboxes):
    sandboxes(
        sandbox("nobody-knows", command=["/bin/true"], user="nobody-knows"),
        sandbox("nowhere", workingDir="/no/such/place"),
    )
    for name, words in (("nobody-knows", 'user: no user "nobody-knows"'), ("nowhere", "workingDir: /no/such/place")):
        refused = cluster.wait_reason(name, "Finished", "InvalidSpec")
        assert words in message(refused, "Ready"), message(refused, "Ready")
        assert condition_of(refused, "GuestReady")["message"] == "no guest runs"
        assert refused["status"]["phase"] == "Failed" and refused["status"].get("restartCount", 0) == 0
        assert cluster.vmm_pid(name) == 0


def test_a_program_that_is_not_there_ends_as_in_a_shell_and_says_why(cluster, sandboxes):
    sandboxes(sandbox("no-program", command=["/no/such/program"], restartPolicy="Never"))
    ended = cluster.wait_phase("no-program", "Failed")
    assert ended["status"]["exitCode"] == 127
    assert condition_of(ended, "Ready")["reason"] == "WorkloadFailed"
    assert "run /no/such/program: ENOENT" in message(ended, "Ready")


@pytest.mark.real_vmm
def test_memory_that_is_no_whole_number_of_mib_is_rounded_up_and_shown(cluster, sandboxes):
    sandboxes(sandbox("decimal", resources={"cpu": 1, "memory": "130M"}))
    cluster.wait_ready("decimal")
    assert cluster.get("decimal")["status"]["resources"]["memory"] == "124Mi"


@pytest.mark.real_vmm
def test_a_guest_that_cannot_start_says_why_in_an_event(cluster, sandboxes):
    """An image without a file system: the guest's init cannot start."""
    cluster.node.run(f"head -c {4 << 20} /dev/urandom >{IMAGES}/noise.img")
    try:
        sandboxes(sandbox("noise", "noise", restartPolicy="Never"))
        ended = cluster.wait_for(
            "noise", lambda sbx: condition_of(sbx, "Finished").get("status") == "True", "given up"
        )
        # Its init gives up as a kernel without one would: it panics, which reboots.
        assert condition_of(ended, "Ready")["reason"] == "GuestRebooted"
        notes = eventually(
            lambda: [
                event["note"]
                for event in cluster.events("noise")
                if event["reason"] == "GuestRebooted"
            ],
            "an event tells of it",
        )
        assert "cannot start" in notes[0], notes
    finally:
        cluster.node.run(f"rm -f {IMAGES}/noise.img")


@pytest.mark.real_vmm
def test_a_guest_reset_by_a_triple_fault_says_so(cluster, sandboxes):
    """Its console is silent then: without the VMM's word nobody could tell it from a reboot."""
    sandboxes(sandbox("faulty", restartPolicy="Never"))
    cluster.wait_ready("faulty")
    fault = "echo triple >/sys/kernel/reboot/type; echo b >/proc/sysrq-trigger"
    cluster.exec("faulty", ["sh", "-c", fault], check=False)
    ended = cluster.wait_reason("faulty", "Ready", "GuestRebooted", 60)
    assert "triple fault" in message(ended, "Ready")


@pytest.mark.real_vmm
def test_a_guest_that_hangs_before_its_agent_times_out(cluster, sandboxes):
    flags = list(cluster.agent_flags)
    try:
        cluster.kill_agent()
        # A root disk that never comes and a kernel that never gives up: init waits for ever.
        cluster.agent_flags = [
            *flags,
            "--guest-timeout=20",
            "--guest-cmdline=rdinit=/nonexistent panic=0",
        ]
        cluster.start_agent()
        sandboxes(sandbox("stuck", restartPolicy="Never"))
        ended = cluster.wait_for(
            "stuck", lambda sbx: condition_of(sbx, "Finished").get("status") == "True", "given up"
        )
        assert condition_of(ended, "Ready")["reason"] == "GuestAgentTimeout"
        assert cluster.vmm_pid("stuck") == 0
    finally:
        cluster.kill_agent()
        cluster.agent_flags = flags
        cluster.start_agent()


@pytest.mark.real_vmm
def test_a_flood_on_the_serial_line_is_capped(cluster, sandboxes):
    flood = "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done >/dev/console"
    sandboxes(
        sandbox("flood", command=["/bin/sh", "-c"], args=[flood], user="root"), sandbox("calm")
    )
    cluster.wait_ready("flood", "calm")
    uid = cluster.get("flood")["metadata"]["uid"]
    folder = f"/var/lib/dormouse/sandboxes/{uid}"

    def written() -> int:
        # Only the guest's flood writes here.
        return int(cluster.node.output(f"cat {folder}/console.log* | wc -c"))

    eventually(lambda: written() > 100 * KIB, "the console is kept", 90)
    before = int(cluster.node.output(["cat", f"/proc/{cluster.agent_pids()[-1]}/statm"]).split()[1])
    eventually(
        lambda: cluster.exec("calm", ["true"], check=False).returncode == 0, "others are served", 60
    )
    after = int(cluster.node.output(["cat", f"/proc/{cluster.agent_pids()[-1]}/statm"]).split()[1])
    assert (
        written() <= 4096 * KIB and after - before < 2048
    ), "pages of the agent, and bytes on disk, are bounded"
