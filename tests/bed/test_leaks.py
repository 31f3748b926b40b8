"""The leak check finds what it must, by names alone."""

from bed.leaks import leaks, parse, short_id

UID = "3f2a0b5c-0000-4000-8000-000000000001"
OTHER = "3f2a0b5c-0000-4000-8000-000000000002"


def listing(uid: str) -> str:
    short = short_id(uid)
    return "\n".join(
        [
            f"dm\tdormouse-{short}-root\t254:0",
            "dm\tdormouse-base-0123456789ab-409600\t254:1",
            f"loop\tloop1\t/var/lib/dormouse/sandboxes/{uid}/store.cow",
            "loop\tloop0\t/var/lib/dormouse/bases/0123456789ab.img",
            f"netns\t{short}\t", f"mount\t{short}\t/run/dormouse/netns/{short}", f"vmdir\t{short}\t",
            f"cgroup\t{short}\t", f"process\t{short}\t811", f"files\t{uid}\t", f"veth\tdmv{short}\t{uid}",
            f"socket\tvm/{short}/api-1.sock\t", "socket\tagent.sock\t",
            "base\t0123456789ab.img\t", f"template\t{uid}\t", "template\t5d1e0f3a5d1e0f3a5d1e0f3a5d1e0f3a\t",
        ]
    )  # fmt: skip


def test_what_a_sandbox_owns_is_no_leak():
    assert leaks(parse(listing(UID)), [UID]) == []


def test_every_kind_is_found_when_its_sandbox_is_gone():
    found = leaks(parse(listing(UID)), [OTHER])
    assert [thing.kind for thing in found] == [
        "dm",
        "loop",
        "netns",
        "mount",
        "vmdir",
        "cgroup",
        "process",
        "files",
        "veth",
        "socket",
        "template",
    ]


def test_without_any_sandbox_no_base_is_open():
    shared = [thing.name for thing in leaks(parse(listing(UID)), []) if thing.shared]
    assert shared == ["dormouse-base-0123456789ab-409600", "loop0"]


def test_a_name_that_tells_nothing_is_a_leak():
    assert [
        str(thing) for thing in leaks(parse("process\toutside\t77 cloud-hyperviso 0::/"), [UID])
    ] == ["process outside 77 cloud-hyperviso 0::/"]


def test_the_core_of_an_agent_that_crashed_is_a_leak():
    assert [thing.kind for thing in leaks(parse("core\t/tmp/dormouse-core.77\tthe agent crashed"), [UID])] == ["core"]
