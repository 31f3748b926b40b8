"""Plain requests to an API server, for tests: no cache, no retry, one connection each.

Thread-safe.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    body: Any

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def message(self) -> str:
        """What a user reads when the request was refused."""
        return self.body.get("message", "") if isinstance(self.body, dict) else str(self.body)


@dataclasses.dataclass(frozen=True)
class ApiClient:
    """Someone's view of an API server: a certificate or a token, and whom they trust."""

    url: str
    ca_file: Path
    cert_file: Path | None = None
    key_file: Path | None = None
    token: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    timeout_seconds: float = 30

    def impersonating(self, user: str) -> "ApiClient":
        """The same connection as another user; whoever calls must be allowed to impersonate."""
        return dataclasses.replace(self, headers={**self.headers, "Impersonate-User": user})

    def connect(self, timeout_seconds: float | None = None) -> http.client.HTTPSConnection:
        """A connection as this client makes it, opened by its first request."""
        address = urlsplit(self.url)
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        timeout = timeout_seconds or self.timeout_seconds
        return http.client.HTTPSConnection(address.hostname, address.port, timeout=timeout, context=context)

    def all_headers(self) -> dict[str, str]:
        """What each request says of who it is of."""
        bearer = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Accept": "application/json", **self.headers, **bearer}

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **query: str,
    ) -> Answer:
        """One request. Raises OSError when the server cannot be reached; any answer of the server
        is returned."""
        headers = self.all_headers()
        payload = None
        if body is not None:
            payload = body if isinstance(body, (str, bytes)) else json.dumps(body)
            headers["Content-Type"] = content_type
        connection = self.connect()
        try:
            connection.request(
                method, f"{path}?{urlencode(query)}" if query else path, payload, headers
            )
            answer = connection.getresponse()
            content = answer.read().decode("utf-8")
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()
        try:
            return Answer(answer.status, json.loads(content))
        except json.JSONDecodeError:
            return Answer(answer.status, content)

    def get(self, path: str, **query: str) -> Answer:
        return self.request("GET", path, **query)

    def create(self, path: str, body: Any, **query: str) -> Answer:
        return self.request("POST", path, body, **query)

    def replace(self, path: str, body: Any, **query: str) -> Answer:
        return self.request("PUT", path, body, **query)

    def merge(self, path: str, body: Any, **query: str) -> Answer:
        return self.request("PATCH", path, body, content_type=MERGE, **query)

    def apply(self, path: str, body: Any, manager: str, **query: str) -> Answer:
        """A forced server-side apply, as our own programs send it."""
        return self.request(
            "PATCH", path, body, content_type=APPLY, fieldManager=manager, force="true", **query
        )

    def delete(self, path: str, **query: str) -> Answer:
        return self.request("DELETE", path, **query)
