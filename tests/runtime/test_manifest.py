from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimexport_runtime import (
    BundleError,
    Classifier,
    IntegrityError,
    VersionError,
    check_files,
    read_manifest,
)
from trimexport_runtime.bundle import to_json

Edit = Callable[[Path, Callable[[dict[str, Any]], None]], None]
MakeBundle = Callable[..., Path]


def test_what_is_written_is_what_is_read(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert to_json(manifest) == (bundle / "trimexport.json").read_text(encoding="utf-8")
    check_files(bundle, manifest, hashes=True)


def test_unknown_keys_are_ignored(bundle: Path, edit_manifest: Edit) -> None:
    before = read_manifest(bundle)

    def change(raw: dict[str, Any]) -> None:
        raw["later"] = {"a": 1}
        raw["labels"][0]["later"] = [1]
        raw["variants"][0]["parity"]["later"] = None
        raw["files"][0]["later"] = 2

    edit_manifest(bundle, change)
    assert read_manifest(bundle) == before
    assert Classifier.load(bundle).classify(["a"])


def test_a_variant_without_parity_can_be_read(make_bundle: MakeBundle) -> None:
    folder = make_bundle(
        change=lambda m: replace(m, variants=(replace(m.variants[0], parity=None),))
    )
    assert read_manifest(folder).variants[0].parity is None


def test_a_newer_format_is_refused(bundle: Path, edit_manifest: Edit) -> None:
    edit_manifest(bundle, lambda raw: raw.update(format_version=2))
    with pytest.raises(VersionError, match=r"format_version 2, .* up to 1; upgrade with `pip"):
        Classifier.load(bundle)


def test_what_is_no_bundle_is_named(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere does not exist; give the directory that"):
        Classifier.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"onnx is not a bundle: it has no trimexport\.json"):
        Classifier.load(bundle / "onnx")
    with pytest.raises(BundleError, match=r"cannot be read: .*; build the bundle again"):
        Classifier.load(bundle / "tokenizer.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read: .*build the bundle again"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[]", "has no format_version, so it is not a trimexport manifest; give the directory"),
        (b'{"format_version": "1"}', "has no format_version"),
        (b'{"format_version": 1}', r"damaged \(no 'labels'\); build the bundle again"),
    ],
)
def test_a_manifest_that_is_none(bundle: Path, content: bytes, message: str) -> None:
    (bundle / "trimexport.json").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_manifest(bundle)


def _set(raw: dict[str, Any], path: str, value: Any) -> None:
    *parts, last = path.split("/")
    place: Any = raw
    for part in parts:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("labels", {"a": 1}, r"a Label is a str, not an object"),
        ("labels", 3, "not iterable"),
        ("labels/0/name", 7, r"Label\.name is 7, not str"),
        ("labels/0/token_ids", ["a"], r"Label\.token_ids is \('a',\), not tuple"),
        ("labels/1/name", "negative", "two labels have the same name"),
        ("labels", [], "it needs two labels and one variant at least"),
        ("variants", [], "it needs two labels and one variant at least"),
        ("prompt", None, "a Prompt is a NoneType"),
        ("prompt/prefix_ids", "123", r"Prompt\.prefix_ids is '123'"),
        ("pad_token_id", True, r"Manifest\.pad_token_id is True, not int"),
        ("label_mass", "much", r"Manifest\.label_mass is 'much'"),
        ("text_limit/tokens", 0, "the text limit is 0 tokens, cut at 'end'"),
        ("text_limit/truncate", "middle", "cut at 'middle'"),
        ("files/0", {"path": "a"}, "missing 2 required positional arguments"),
        ("files/0/path", "../secret", r'the path "\.\./secret" is not one inside the bundle'),
        ("files/0/path", "/etc/passwd", "is not one inside the bundle"),
        ("files/0/path", "C:\\x", "is not one inside the bundle"),
        ("files/0/path", "a\\..\\..\\b", "is not one inside the bundle"),
        ("files/0/path", "", "is not one inside the bundle"),
        ("variants/0/graph", "onnx/../../model.onnx", "is not one inside the bundle"),
        ("variants/0/files", ["/model.onnx"], "is not one inside the bundle"),
        ("variants/0/parity", [], "a Parity is a list"),
    ],
)
def test_a_damaged_manifest_says_what_is_damaged(
    bundle: Path, edit_manifest: Edit, path: str, value: Any, message: str
) -> None:
    edit_manifest(bundle, lambda raw: _set(raw, path, value))
    with pytest.raises(BundleError, match=rf"trimexport\.json is damaged \(.*{message}"):
        Classifier.load(bundle)


def test_an_unknown_variant_lists_those_there_are(bundle: Path) -> None:
    with pytest.raises(BundleError, match='no variant "int8"; it has: fp32'):
        Classifier.load(bundle, variant="int8")


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data"])
def test_missing_truncated_and_altered_files(bundle: Path, name: str) -> None:
    path = bundle / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(IntegrityError, match=r"bytes, the manifest says .*copy the bundle again"):
        Classifier.load(bundle)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"was altered: its SHA-256 is not the manifest's"):
        check_files(bundle, read_manifest(bundle), hashes=True)
    path.unlink()
    with pytest.raises(IntegrityError, match=f"{name} is missing from the bundle"):
        Classifier.load(bundle)


def test_hashing_tells_how_far_it_is(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    steps: list[int] = []
    check_files(bundle, manifest, hashes=True, advance=steps.append)
    assert sum(steps) == sum(entry.bytes for entry in manifest.files)


def _same_size(path: Path) -> None:
    """Overwrite a file with nonsense of the same length."""
    path.write_bytes(b"\xff" * path.stat().st_size)


def test_a_corrupt_graph_is_one_clear_error(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _same_size(bundle / "onnx" / "model.onnx")
    with pytest.raises(BundleError, match=r"cannot be loaded by ONNX Runtime .*info --check"):
        Classifier.load(bundle)
    assert capfd.readouterr().err == ""


def test_a_corrupt_tokenizer_is_one_clear_error(bundle: Path) -> None:
    _same_size(bundle / "tokenizer.json")
    with pytest.raises(BundleError, match=r"cannot be read as a tokenizer .*copy the bundle again"):
        Classifier.load(bundle)
    path = bundle / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0"}).ljust(path.stat().st_size), encoding="utf-8")
    with pytest.raises(BundleError, match="cannot be read as a tokenizer"):
        Classifier.load(bundle)
