"""The settings of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The settings of a server.

    Args:
        max_body: bytes of a request's body.
        max_texts: texts of one request.
        max_queue: tokens that may wait before requests are turned away.
        wait: seconds that a text may wait for others to join its batch.
        workers: batches of a bundle that may run at once.
        timeout: seconds within which a request's headers, and then its body, must have come.
        drain: seconds within which accepted requests end after SIGTERM.
        api_key: the bearer token that clients have to send; None asks for none.
        cors_origins: the origins, in lower case, whose pages may ask from a browser; "*" is all.
        log_texts: whether the texts are written into the log.
    """

    max_body: int = 4 * 2**20
    max_texts: int = 1024
    max_queue: int = 262_144
    wait: float = 0.0
    workers: int = 1
    timeout: float = 20.0
    drain: float = 30.0
    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    log_texts: bool = False
