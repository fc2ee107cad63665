"""The key that clients send: `Authorization: Bearer KEY` (RFC 6750).

A header is bytes, and clients do not agree on those of a letter beyond ASCII: curl and aiohttp send
UTF-8, Python's `http.client` and `requests`, Node and browsers Latin-1. Either is the key.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from trimexport_runtime.errors import BundleError


def is_sent(header: bytes, key: str) -> bool:
    """Whether the value of an Authorization header is `key`. How long that takes says nothing about
    the key."""
    scheme, _, given = header.partition(b" ")
    same = [hmac.compare_digest(given.strip(), spelled) for spelled in _spellings(key)]
    return scheme.lower() == b"bearer" and any(same)


def read_key(file: Path) -> str:
    """The key in a file.

    Raises:
        BundleError: the file cannot be read, or what it holds can be no key.
    """
    try:
        content = file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"the key file {file} cannot be read: {error}") from None
    return checked(content, f"the key file {file}")


def checked(key: str, origin: str) -> str:
    """`key`, if a header can hold it; `origin` says where it is from.

    Raises:
        BundleError: it cannot.
    """
    if not key.strip():
        raise BundleError(f"{origin} is empty; write the key into it")
    if key != key.strip() or any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        raise BundleError(
            f"{origin} has a line break, a control character or a blank at an end, which no header "
            "can hold; write one key without them"
        )
    return key


def _spellings(key: str) -> list[bytes]:
    """The bytes that stand for `key`: what argv and the environment held, and Latin-1 if it can."""
    spelled = [key.encode(errors="surrogateescape")]
    try:
        return [*spelled, key.encode("latin-1")]
    except UnicodeEncodeError:
        return spelled
