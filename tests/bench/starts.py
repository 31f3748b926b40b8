"""Applies sandboxes and tells when each became what, by one watch: no polling, no client start-up in the figures."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

from bed.api_client import ApiClient
from bed.manifests import SANDBOXES, object_path


class Creator:
    """Creates sandboxes over one connection: what is measured is no TLS handshake. Ends with `stop`."""

    def __init__(self, client: ApiClient) -> None:
        self._connection = client.connect()
        self._headers = {**client.all_headers(), "Content-Type": "application/json"}
        self._connection.connect()

    def create(self, manifest: dict) -> None:
        self._connection.request("POST", object_path(SANDBOXES), json.dumps(manifest), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 201, content.decode()

    def stop(self) -> None:
        self._connection.close()


class Watch:
    """Remembers when each sandbox was first seen placed, and Ready. Ends with `stop`."""

    def __init__(self, client: ApiClient) -> None:
        self.placed: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._status_writes: Counter[str] = Counter()
        self._seen: dict[str, dict] = {}
        self._changed = threading.Condition()
        listed = client.get(object_path(SANDBOXES))
        assert listed.ok, listed.message
        since = listed.body["metadata"]["resourceVersion"]
        self._connection = client.connect(timeout_seconds=600)
        path = object_path(SANDBOXES) + f"?watch=true&resourceVersion={since}"
        self._connection.request("GET", path, headers=client.all_headers())
        self._answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while line := self._answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ValueError(event["object"])
                self._take(event["object"], time.monotonic())
        except (OSError, AttributeError):
            pass  # stop() closed it

    def _take(self, sandbox: dict, now: float) -> None:
        name, status = sandbox["metadata"]["name"], sandbox.get("status", {})
        with self._changed:
            if status != self._seen.get(name, {}).get("status", {}):
                self._status_writes[name] += 1
            self._seen[name] = sandbox
            if status.get("nodeName"):
                self.placed.setdefault(name, now)
            for condition in status.get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    self.ready.setdefault(name, now)
            self._changed.notify_all()

    def status_writes(self, sandbox: dict) -> int:
        """Of anybody, since this watch began, until the sandbox read as given."""
        name, version = sandbox["metadata"]["name"], int(sandbox["metadata"]["resourceVersion"])
        with self._changed:
            told = self._changed.wait_for(
                lambda: int(self._seen.get(name, {"metadata": {"resourceVersion": 0}})["metadata"]["resourceVersion"]) >= version, 60
            )
            assert told, f"the watch does not tell of {name}"
            return self._status_writes[name]

    def wait_ready(self, names: list[str], seconds: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: all(n in self.ready for n in names), seconds):
                missing = [name for name in names if name not in self.ready]
                raise TimeoutError(f"not Ready after {seconds:.0f} s: {missing[:5]} ({len(missing)} in all)")

    def stop(self) -> None:
        self._connection.sock.shutdown(2)
        self._thread.join(timeout=5)
