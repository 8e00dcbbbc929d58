"""A Hugging Face hub on loopback, as much of it as huggingface_hub asks for to download a model."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["HubServer", "hub_server"]

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class HubServer(ThreadingHTTPServer):
    """Serves one repository.

    Args:
        repo: as `org/name`.
        files: contents by relative path; from 64 KiB on as LFS does, by SHA-256.
    """

    def __init__(self, repo: str, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo = repo
        self.files = files
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """Where it listens; for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def hub_server(repo: str, files: Mapping[str, bytes]) -> Iterator[HubServer]:
    """Run a server for as long as the context."""
    with HubServer(repo, files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        self.server.requests.append(f"{self.command} {path}")
        repo, files = self.server.repo, self.server.files
        if path.startswith(f"api/models/{repo}/tree/"):
            self._send(json.dumps([_entry(name, data) for name, data in files.items()]).encode())
        elif path in {f"api/models/{repo}", f"api/models/{repo}/revision/main"}:
            siblings = [{"rfilename": name} for name in files]
            info = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self._send(json.dumps(info).encode())
        elif path.startswith(f"{repo}/resolve/") and (name := path.split("/", 4)[4]) in files:
            entry = _entry(name, files[name])
            etag = entry.get("lfs", entry)["oid"]
            self._send(files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self._send(b"{}", {"X-Error-Code": "RepoNotFound"}, status=404)

    def _send(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git}
    if len(data) >= 1 << 16:
        oid = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}
    return entry
