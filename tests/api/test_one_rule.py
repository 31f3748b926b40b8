"""One rule for each field: what the API server admits, controller and agent read, and as the same; what it refuses, they
refuse. Values are made at each field's edges and at random; $DORMOUSE_VALUES says how many of them (a thousand in the long
tier), $DORMOUSE_SEED which."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from conftest import NAMESPACE, sandbox, template

from bed.chart import API_VERSION
from bed.product import built_test

VALUES = int(os.environ.get("DORMOUSE_VALUES", "120"))
SEED = os.environ.get("DORMOUSE_SEED", "1")
PATH = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/{{}}?dryRun=All&fieldValidation=Strict"
MIB = 1 << 20
METADATA = {"name": "one-rule", "namespace": "d", "uid": "3f2a0000-1111-2222-3333-444455556666", "resourceVersion": "1"}
SUFFIXES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60, "n": Fraction(1, 10**9)}
SUFFIXES |= {"u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SUFFIXES |= {"P": 10**15, "E": 10**18}
Draw = Callable[[random.Random], object]


# --- values ---------------------------------------------------------------------------------------


def quantity(rng: random.Random) -> object:
    """Memory and disks as people write them, and as they should not."""
    whole = rng.choice(["0", "1", "63", "64", "65", "300", "512", "0064", "1024", "67108863", "67108864", "268435457",
                        "17592186044416", "70368744177664", str(rng.randrange(10**rng.randrange(1, 20)))])  # fmt: skip
    point = rng.choice(["", "", "", ".", ".5", ".3", ".0", "." + str(rng.randrange(10**6)), ".000000000001"])
    end = rng.choice([*SUFFIXES, "Mi", "Gi", "e3", "E6", "e+6", "e-3", "e9", "e", "KB", "mi", "MiB", "i", " Mi", "e1.5"])
    sign = rng.choice(["", "", "", "", "", "", "+", "-"])
    return rng.choice([sign + whole + point + end] * 12 + [int(whole), "", "much", "." + end, "0x10", "1 Gi", "１２Mi", "∞", True])


def integer(rng: random.Random) -> object:
    return rng.choice([-1, 0, 1, 2, 63, 64, 65, 1.0, 2.5, 1e3, "1", "", "500m", True, 2**31, 2**63, 65535, 65536, rng.randrange(-5, 70000)])


def text(alphabet: str, lengths: list[int], *edges: str) -> Draw:
    """Words of an alphabet, by these lengths and one more or less, now and then with what does not belong there."""
    strange = ["\0", "\x1b", "\n", "/", "ü", "🦔", " ", "..", "=", ":", "%", "\x7f", "A", "_"]

    def draw(rng: random.Random) -> object:
        if edges and rng.random() < 0.3:
            return rng.choice(edges)
        size = rng.choice([0, 1, 2, 3, 8, *[length + step for length in lengths for step in (-1, 0, 1)]])
        word = "".join(rng.choice(alphabet) for _ in range(size)) if size < 500 else rng.choice(alphabet) * size
        if word and rng.random() < 0.25:
            at = rng.randrange(len(word))
            word = word[:at] + rng.choice(strange) + word[at + 1 :]
        return word

    return draw


LOWER = "abcxyz019"
NAME = LOWER + "-."


def cidr(rng: random.Random) -> object:
    length = rng.randrange(0, 34)
    if rng.random() < 0.5:
        number = rng.getrandbits(32) >> (32 - min(length, 32)) << (32 - min(length, 32)) if rng.random() < 0.7 else rng.getrandbits(32)
        address = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
    else:
        length = rng.randrange(0, 130)
        address = rng.choice(["::", "2001:db8::", "2001:DB8::", "fe80::%eth0", "::ffff:10.0.0.0", "1:2:3:4:5:6:7:8", "2001:db8::1"])
    return rng.choice([f"{address}/{length}"] * 6 + [address, f"{address}/0{length}", f"{address}/", f"{address}/-1", "010.0.0.0/8", "10.0.0/8", "all", ""])


def address(rng: random.Random) -> object:
    return rng.choice(["9.9.9.9", "203.0.113.53", "::1", "2001:db8::53", "fe80::1%eth0", "::ffff:9.9.9.9", "9.9.9", "09.9.9.9", "256.1.1.1",
                       "dns.example", "", "9.9.9.9 ", "1::2::3", str(cidr(rng)), ".".join(str(rng.randrange(300)) for _ in range(4))])  # fmt: skip


def listed(one: Draw, most: int) -> Draw:
    """Few of any length, or as many short ones as there may be: all of it fits a request."""

    def draw(rng: random.Random) -> object:
        count = rng.choice([0, 1, 1, 1, 1, 2, 3, most, most + 1])
        items = [one(rng) for _ in range(count if count <= 3 else 100)]
        if count > 3:
            short = [item for item in items if len(json.dumps(item)) < 200]
            items = [rng.choice(short) for _ in range(count)]
        return items

    return draw


def mapped(**fields: Draw) -> Draw:
    def draw(rng: random.Random) -> object:
        return {name: one(rng) for name, one in fields.items() if rng.random() < 0.9}

    return draw


def some(*values: object) -> Draw:
    return lambda rng: rng.choice(values)


def duration(rng: random.Random) -> object:
    number = rng.choice(["0", "1", "59", "007", "999999", "9999999", "999999999", str(rng.randrange(10 ** rng.randrange(1, 11)))])
    parts = "".join(number + unit for unit in "hms" if rng.random() < 0.5)
    return rng.choice([parts] * 5 + [number, number + "m" + number + "h", "1.5h", "100ms", "1d", "-1s", "+1s", "", "0", "0s", "1s ", "1H", "soon", 600])


def instant(rng: random.Random) -> object:
    date = rng.choice(["2030-01-02", "1970-01-01", "0001-01-01", "9999-12-31", "2024-02-29", "2023-02-29", "2030-13-01", "2030-1-2", "20300102"])
    clock = rng.choice(["15:04:05", "00:00:00", "23:59:59", "23:59:60", "24:00:00", "15:04", "15:04:05.5", "15:04:05.123456789", "15:04:05,5"])
    zone = rng.choice(["Z", "Z", "+09:00", "-11:30", "+00:00", "+0900", "z", "", "+25:00", " UTC"])
    return rng.choice([f"{date}{between}{clock}{zone}" for between in "TTTTt "] + ["tomorrow", "", date, 1893596645])


def words(rng: random.Random) -> list:
    """Of a command: short ones, and those that are too much for a message."""
    if rng.random() < 0.4:
        return [rng.choice(["x", "ü", "\x1b", "\n", '"']) * rng.randrange(16385) for _ in range(rng.randrange(1, 4))]
    return listed(text("abc /-=", [16384], "sh", "/bin/true", ""), 256)(rng)


# By the field's path: what stands there.
FIELDS: dict[str, Draw] = {
    "source.image.name": text(LOWER + "ABC._-", [63, 251, 253], "..", ".a", "a/b", "debian_12", "a.", "-a"),
    "source.snapshotTemplate.name": text(NAME, [63, 253], "..", "a..b", "A"),
    "resources.cpu": integer,
    "resources.memory": quantity,
    "disk.size": quantity,
    "command": words,
    "args": words,
    "env": listed(
        mapped(
            name=text("ABC_.-019", [253], "A", "PATH", "1A", "A=B", ""),
            value=text('ab"\\\n\x1b', [4000, 16384], "a\0b", "ü" * 16384),
        ), 256),
    "workingDir": text("/ab.", [4096], "", "/", "srv", "/a\0b", "//", "/ü", "~"),
    "user": text("abz_019-.", [10, 32, 65], "app", "1000", "1000:1000", "a:b", "a:", ":b", "a:b:c", "99999999999", "A"),
    "dns.nameservers": listed(address, 3),
    "dns.searches": listed(text("abz019-._A", [63, 253], "a.b", "a..b", ".", "a.", "-a", "corp.example"), 32),
    "dns.options": listed(text("abz019-:", [64], "ndots:2", "edns0", "ndots:", ":1", "a:1:2", "A"), 16),
    "operatingMode": some("Running", "Suspended", "Stopped", "running", "", "Paused", 1),
    "restartedAt": instant,
    "terminationGracePeriodSeconds": lambda rng: rng.choice([integer(rng), 30, 3599, 3600, 3601, 86400]),
    "idle.timeout": duration,
    "lifecycle.shutdownTime": instant,
    "lifecycle.ttlAfterFinished": duration,
    "lifecycle.shutdownPolicy": some("Delete", "Retain", "delete", "", 1),
    "bootSnapshot": some("Auto", "Never", "auto", "", True),
    "restartPolicy": some("Never", "OnFailure", "Always", "never", "", False),
    "network.egress": some("Restricted", "Open", "None", "none", "", 0),
    "network.allow": listed(mapped(cidr=cidr), 64),
    "network.deny": listed(mapped(cidr=cidr), 64),
    "network.ports": listed(
        mapped(
            name=text(LOWER + "-", [63], "http", "a.b", "-a"),
            port=integer,
            protocol=some("TCP", "UDP", "SCTP", "tcp", ""),
        ), 32),
    "nodeSelector": lambda rng: {
        str(text(NAME + "/", [63])(rng)) + str(i): text("ab", [63], "ü" * 63, "")(rng) for i in range(rng.choice([0, 1, 64, 65]))
    },
    "tolerations": listed(
        mapped(
            key=text(NAME + "/", [316], "", "a"),
            operator=some("Equal", "Exists", "equal", ""),
            value=text("ab", [63], ""),
            effect=some("", "NoSchedule", "PreferNoSchedule", "NoExecute", "noSchedule"),
        ), 64),
}  # fmt: skip


TEMPLATE_FIELDS: dict[str, Draw] = {
    "source.sandbox.name": text(NAME, [63, 253], "..", "a..b", "A"),
    "sourceAfterCapture": some("Resume", "Suspend", "Delete", "resume", "", 1),
    "failureDeadline": duration,
    "ttl": duration,
    "deletionPolicy": some("Delete", "Retain", "delete", "", 1),
}


def spec_with(field: str, value: object) -> dict:
    """The least spec, and that field."""
    spec: dict = {} if field.startswith("source.") else {"source": {"image": {"name": "debian-12"}}}
    if field == "args":
        spec["command"] = ["sh"]
    *way, last = field.split(".")
    place = spec
    for step in way:
        place = place.setdefault(step, {})
    place[last] = value
    return spec


# --- both sides -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[dict], dict]]:
    """What controller and agent read."""
    program = built_test("spec-reader")
    assert program, "spec-reader was not built"
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:

        def read(body: dict) -> dict:
            running.stdin.write(json.dumps(body) + "\n")
            running.stdin.flush()
            return json.loads(running.stdout.readline())

        yield read
        running.stdin.close()
        assert running.wait(30) == 0


@pytest.fixture(scope="module")
def server(control_plane) -> Iterator[Callable[[dict], dict | str]]:
    """The object as the API server would keep it, or why it does not take it."""
    client = control_plane.admin
    connection = client.connect()

    def create(body: dict) -> dict | str:
        connection.request("POST", PATH.format(body["kind"].lower() + ("es" if body["kind"] == "Sandbox" else "s")), json.dumps(body), {**client.all_headers(), "Content-Type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        if answer.status == 201:
            return said
        assert answer.status in (400, 422), said
        return said["message"]

    yield create
    connection.close()


def bytes_of(text: str) -> int:
    """Of a legal quantity, rounded up; read by nothing of ours."""
    number = text.lstrip("+")
    digits = number.rstrip("KMGTPEikmnu")
    suffix = number[len(digits) :]
    if suffix not in SUFFIXES or "e" in digits or "E" in number[:-1]:
        mantissa, _, exponent = number.replace("E", "e").partition("e")
        return -(-Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(exponent) // 1)
    return -(-Fraction((digits.rstrip(".") or "0")) * SUFFIXES[suffix] // 1)


@pytest.mark.parametrize("field", FIELDS)
def test_the_server_and_ours_agree(field, server, reader):
    rng = random.Random(f"{SEED} {field}")
    verdicts = {True: 0, False: 0}
    for number in range(VALUES):
        spec = spec_with(field, FIELDS[field](rng))
        kept = server(sandbox("one-rule", **spec))
        admitted = isinstance(kept, dict)
        # As a controller would see it: with the server's defaults where it was admitted.
        ours = reader({**(kept if admitted else sandbox("one-rule", **spec)), "metadata": METADATA})
        shown = json.dumps(spec, ensure_ascii=True)[:400]
        assert admitted == ("refused" not in ours), f"value {number}: {shown}\nserver: {kept if not admitted else 'admits'}\nours: {ours}"
        verdicts[admitted] += 1
        if admitted:
            size = spec.get("resources", {}).get("memory")
            assert ours["memory"] == (-(-bytes_of(size) // MIB) * MIB if size else 512 * MIB), shown
            size = spec.get("disk", {}).get("size")
            assert ours["disk"] == (bytes_of(size) if size else None), shown
    assert VALUES < 100 or min(verdicts.values()) >= VALUES // 50, f"the values prove little: {verdicts}"


@pytest.mark.parametrize("field", TEMPLATE_FIELDS)
def test_the_server_and_ours_agree_on_templates(field, server, reader):
    rng = random.Random(f"{SEED} template {field}")
    for number in range(VALUES):
        value = TEMPLATE_FIELDS[field](rng)
        spec = {"source": {"sandbox": {"name": value}}} if field == "source.sandbox.name" else {field: value}
        made = template("one-rule", **spec)
        kept = server(made)
        admitted = isinstance(kept, dict)
        ours = reader({**(kept if admitted else made), "metadata": METADATA})
        assert admitted == ("refused" not in ours), f"value {number}: {json.dumps(spec)[:400]}\nserver: {kept}\nours: {ours}"
