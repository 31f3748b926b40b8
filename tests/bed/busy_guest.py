"""A guest with something to lose: a table of noise in its memory, an open file, an open pipe with a reader, a child that
counts. What it says of them later is the same, however often it slept and whoever it has become.

    busy_guest.start(cluster, "source")
    busy_guest.check(cluster, "source", mark="before")
    ...
    busy_guest.expect_heard(cluster, "clone", ["before", ...])
"""

from __future__ import annotations

from typing import Sequence

from bed.cluster import Cluster
from bed.eventually import eventually

# The child's count is in its own memory, and each number a line of the file that it holds open.
PROGRAM = """
dd if=/dev/urandom of=/dev/shm/table bs=64k count=64 2>/dev/null
sha256sum /dev/shm/table >/dev/shm/sum
: >/dev/shm/boot  # gone after another boot; a clone has another boot_id
mkfifo /dev/shm/pipe
(exec 4<>/dev/shm/pipe; while read line <&4; do echo $line >>/root/heard; done) </dev/null >/dev/null 2>&1 &
(exec 3>/root/open; i=0; while true; do i=$((i+1)); echo $i >&3; sleep 0.1; done) </dev/null >/dev/null 2>&1 &
echo $! >/dev/shm/child
"""
TABLE_PAGES = 1024
CHECK = """
sha256sum -c /dev/shm/sum >/dev/null || echo "memory differs"
[ -e /dev/shm/boot ] || echo "booted again"
kill -0 $(cat /dev/shm/child) || echo "the child is gone"
echo MARK >/dev/shm/pipe
awk 'NR != $1 { wrong = 1 } END { if (wrong) print "the open file differs"; print NR }' /root/open
"""
WRITE = """
for page in PAGES; do dd if=/dev/urandom of=/dev/shm/table bs=4k count=1 seek=$page conv=notrunc 2>/dev/null; done
sha256sum /dev/shm/table >/dev/shm/sum
"""


def start(cluster: Cluster, name: str) -> None:
    """Returns once the child counts."""
    cluster.exec(name, ["sh", "-c", PROGRAM])
    eventually(lambda: cluster.exec(name, ["cat", "/root/open"], check=False).stdout.strip(), f"{name} counts")


def check(cluster: Cluster, name: str, mark: str) -> int:
    """What its memory, its open file and its processes say; `mark` goes through the pipe. The child's count."""
    said = cluster.exec(name, ["sh", "-c", CHECK.replace("MARK", mark)]).stdout.split("\n")
    assert said[0].isdigit(), said
    return int(said[0])


def write(cluster: Cluster, name: str, pages: Sequence[int]) -> None:
    """New noise, in these of the TABLE_PAGES."""
    cluster.exec(name, ["sh", "-c", WRITE.replace("PAGES", " ".join(map(str, pages)))])


def expect_heard(cluster: Cluster, name: str, marks: Sequence[str]) -> None:
    eventually(
        lambda: cluster.exec(name, ["cat", "/root/heard"]).stdout.split() == list(marks), "all went through the pipe, in order"
    )
