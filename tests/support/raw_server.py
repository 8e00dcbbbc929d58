"""A server on loopback that answers each request with the bytes that it is given, however hostile."""

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Self

__all__ = ["RawRequest", "RawServer", "http"]


@dataclass
class RawRequest:
    """A request as it came."""

    head: bytes
    body: bytes

    @property
    def authorization(self) -> str:
        """The value of the header of that name, or ""."""
        for line in self.head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"authorization":
                return value.strip().decode("latin-1")
        return ""


def http(body: bytes, status: str = "200 OK", **headers: str) -> list[bytes]:
    """An answer with these headers, underscores in their names standing for hyphens."""
    told = {"content-type": "application/json", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return [f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body]


class RawServer:
    """A context manager that runs the server in threads of its own.

    Args:
        answer: returns the pieces that answer a request; an endless iterable is sent until the
            client goes away, and no piece at all closes the connection.
    """

    def __init__(self, answer: Callable[[RawRequest], Iterable[bytes]]) -> None:
        self.answer = answer
        self.requests: list[RawRequest] = []
        self.sent = 0
        """Bytes that clients took."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._open.append(connection)
                self._start(lambda connection=connection: self._serve(connection))  # type: ignore[misc]

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while (request := _read(stream)) is not None:
                self.requests.append(request)
                pieces = 0
                for pieces, piece in enumerate(self.answer(request), 1):  # noqa: B007
                    connection.sendall(piece)
                    self.sent += len(piece)
                if not pieces:
                    return


def _read(stream: BinaryIO) -> RawRequest | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        head += line
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return RawRequest(head, stream.read(length))
