"""What the first line of a file says of it where it is no UTF-8 text, or has lines of another kind.

Such files decode to something, so that their texts would be classified, all of them wrongly.
"""

from __future__ import annotations

from .errors import InputError

UTF8_MARK = b"\xef\xbb\xbf"
NO_TEXT = "the line has a NUL byte, as other encodings and binary files do; save the file as UTF-8"

# Marks at the beginning of a file. Those of UTF-32 come first: one begins as UTF-16's does.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_BINARY = {
    b"PK\x03\x04": ("a ZIP archive, as .xlsx and .ods files are", "save its table as CSV UTF-8"),
    b"\x1f\x8b": ("compressed with gzip", "decompress it with gunzip"),
    b"PAR1": ("a Parquet file", "name it .parquet"),
}
# Where the bytes of letters from A to Z are NUL: the size of a code and the places in it.
_NUL_PLACES = {
    "UTF-32LE": (4, (1, 2, 3)),
    "UTF-32BE": (4, (0, 1, 2)),
    "UTF-16LE": (2, (1,)),
    "UTF-16BE": (2, (0,)),
}
_LOOK = 4096  # bytes of the first line that are looked at
_LEAST = 16  # one code in so many is a letter from A to Z, a space or a comma, in any language


def check_first_line(first: bytes, name: str) -> None:
    """Refuse a file by its first line, which is all of it where no line feed ends lines.

    Args:
        name: what the message calls the file.

    Raises:
        InputError: as `check_encoding`, or its lines end with carriage returns alone.
    """
    check_encoding(first, name)
    if not first.endswith(b"\n") and b"\r" in first.removesuffix(b"\r"):
        raise InputError(
            f"{name} ends its lines with carriage returns (CR) alone, so that it is one line; end "
            r"them with line feeds, for example with tr '\r' '\n'"
        )


def check_encoding(start: bytes, name: str) -> None:
    """Refuse a file by its first bytes.

    Args:
        name: what the message calls the file.

    Raises:
        InputError: it is UTF-16 or UTF-32, with or without a byte order mark, or a binary file of a
            known kind.
    """
    for magic, (kind, remedy) in _BINARY.items():
        if start.startswith(magic):
            raise InputError(f"{name} is {kind}, and texts are read as UTF-8; {remedy}")
    marked = next((it for mark, it in _MARKS.items() if start.startswith(mark)), None)
    if (encoding := marked or _unmarked(start[:_LOOK])) is not None:
        raise InputError(
            f"{name} is {encoding}, and texts are read as UTF-8; save it as UTF-8 (in Excel: CSV "
            f"UTF-8), or convert it with iconv -f {encoding} -t UTF-8"
        )


def _unmarked(start: bytes) -> str | None:
    """The encoding without a mark whose NUL bytes are those in `start`."""
    if b"\0" not in start:
        return None
    for encoding, (size, places) in _NUL_PLACES.items():
        found = [start[place::size].count(0) for place in range(size)]
        elsewhere = sum(found) - sum(found[place] for place in places)
        if not elsewhere and min(found[place] for place in places) * _LEAST * size >= len(start):
            return encoding
    return None
