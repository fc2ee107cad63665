from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest

from trimexport_runtime import (
    BundleError,
    Classifier,
    IntegrityError,
    Manifest,
    VersionError,
    check_files,
    read_manifest,
)
from trimexport_runtime._manifest_json import read
from trimexport_runtime.bundle import to_json

Edit = Callable[[Path, Callable[[dict[str, Any]], None]], None]
MakeBundle = Callable[..., Path]

ENGINE = {
    "file": "tensorrt/model.plan",
    "bytes": 3,
    "sha256": "0" * 64,
    "tensorrt": "10.13.3.9",
    "compute_capability": "8.9",
    "gpu": "a GPU",
    "profiles": [{"opt": [1, 8], "max": [4, 32]}],
    "built_from": {"onnx/model.onnx": "1" * 64},
}
CALIBRATION = {
    "method": "prior",
    "texts": 64,
    "bias": [0.5, -0.25, 0],
    "prior": {"negative": 0.5, "positive": 0.25, "mixed": 0.25},
    "variant": "fp32",
}
FIT = {
    "examples": {"negative": 8, "positive": 8},
    "examples_sha256": "2" * 64,
    "shots": 8,
    "seed": 1,
    "strength": 0.1,
    "accuracy": 1,
    "folds": 5,
    "variant": "fp32",
}

_WORD = {"words": ["w"], "token_ids": [1], "tokens": ["w"]}
QUESTION = {
    "name": "mood",
    "text": "How is it?",
    "suffix_ids": [8],
    "labels": [{"name": "good", **_WORD}, {"name": "bad", **_WORD}],
}


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
    edit_manifest(bundle, lambda raw: raw.update(format_version=4))
    with pytest.raises(VersionError, match=r"format_version 4, .* up to 3; upgrade with `pip"):
        Classifier.load(bundle)


def test_what_is_no_bundle_is_named(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere does not exist; give the directory that"):
        Classifier.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"onnx is not a bundle: it has no trimexport\.json"):
        Classifier.load(bundle / "onnx")
    with pytest.raises(BundleError, match=r"is a file, and a bundle is a directory; give the"):
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


def _remove(raw: dict[str, Any], path: str) -> None:
    *parts, last = path.split("/")
    place: Any = raw
    for part in parts:
        place = place[int(part) if isinstance(place, list) else part]
    del place[last]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("labels", {"a": 1}, r'labels is {"a": 1}, not a list'),
        ("labels", 3, "labels is 3, not a list"),
        ("labels/0", "good", r'labels\[0\] is "good", not an object'),
        ("labels/0/name", 7, r"labels\[0\]\.name is 7, not a string"),
        ("labels/0/token_ids", ["a"], r'labels\[0\]\.token_ids\[0\] is "a", not a whole number'),
        ("labels/1/name", "negative", "two labels have the same name"),
        ("labels", [], "0 labels do not fit the score 'softmax'"),
        ("variants", [], "it needs one variant at least"),
        ("score", {"kind": "rank"}, "the score is 'rank', not one of softmax, log-odds, logit, "),
        ("score", {"kind": "log-odds"}, "3 labels do not fit the score 'log-odds'"),
        ("score", {"kind": "logit"}, "3 labels do not fit the score 'logit'"),
        ("score", {"threshold": 1.5}, r"the score's threshold is 1\.5, not from 0 to 1"),
        ("prompt/fields", [{"name": "a"}, {"name": "a"}], r"has the fields \['a', 'a'\], of which"),
        ("prompt/fields", [{"name": "a", "default": ""}], r"fields \['a'\] none has to be given"),
        ("text_limit/field", "query", r"has the fields \['text'\], of which 'query' is cut"),
        ("prompt", None, "prompt is null, not an object"),
        ("prompt/prefix_ids", "123", r'prompt\.prefix_ids is "123", not a list'),
        ("prompt/rendered", 1, r"prompt\.rendered is 1, not true or false"),
        ("prompt/template", ["x" * 80], r'prompt\.template is \["x{57}…, not a string'),
        ("pad_token_id", True, "pad_token_id is true, not a whole number"),
        ("pad_token_id", 1.5, r"pad_token_id is 1\.5, not a whole number"),
        ("label_mass", "much", 'label_mass is "much", not a number'),
        ("label_mass", False, "label_mass is false, not a number"),
        ("label_mass", float("nan"), "label_mass is nan, not a finite number"),
        ("pad_token_id", float("nan"), "pad_token_id is nan, not a whole number"),
        ("variants/0/parity/agreement", -float("inf"), "agreement is -inf, not a finite number"),
        ("tool_versions", {"a b": 1}, r'tool_versions\["a b"\] is 1, not a string'),
        ("text_limit/tokens", 0, "the text limit is 0 tokens, cut at 'end'"),
        ("text_limit/truncate", "middle", "cut at 'middle'"),
        ("files/0", {"path": "a"}, r"no 'files\[0\]\.bytes'"),
        ("files/0/path", "../secret", r'the path "\.\./secret" is not one inside the bundle'),
        ("files/0/path", "/etc/passwd", "is not one inside the bundle"),
        ("files/0/path", "C:\\x", "is not one inside the bundle"),
        ("files/0/path", "a\\..\\..\\b", "is not one inside the bundle"),
        ("files/0/path", "", "is not one inside the bundle"),
        ("variants/0/graph", "onnx/../../model.onnx", "is not one inside the bundle"),
        ("variants/0/files", ["/model.onnx"], "is not one inside the bundle"),
        ("variants/0/parity", [], r"variants\[0\]\.parity is \[\], not an object"),
        (
            "variants/0/parity/agreement",
            "x",
            r'variants\[0\]\.parity\.agreement is "x", not a number',
        ),
        ("calibration", {**CALIBRATION, "bias": [0.5]}, "the calibration has 1 numbers, not 3"),
        ("questions", [QUESTION, QUESTION], "two questions have the same name"),
        ("questions", [QUESTION], r"are not \['mood: good', 'mood: bad'\]"),
        ("variants/0/engine", {**ENGINE, "file": "../a"}, "is not one inside the bundle"),
        (
            "variants/0/engine",
            {**ENGINE, "profiles": [{"opt": [1, 0], "max": [1, 8]}]},
            r"the engine tensorrt/model\.plan has profiles \[\(1, 0\), \(1, 8\)\]",
        ),
        ("variants/0/engine", {**ENGINE, "profiles": []}, r"has profiles \[\]"),
        (
            "variants/0/taken_over",
            {"matrices": 8, "of": 7, "embedding": False},
            r"variant \S+ has taken 8 of 7 matrices over",
        ),
        (
            "variants/0/taken_over",
            {"matrices": 7, "of": 7},
            r"no 'variants\[0\]\.taken_over\.embedding'",
        ),
    ],
)
def test_a_damaged_manifest_says_what_is_damaged(
    bundle: Path, edit_manifest: Edit, path: str, value: Any, message: str
) -> None:
    edit_manifest(bundle, lambda raw: _set(raw, path, value))
    with pytest.raises(BundleError, match=rf"trimexport\.json is damaged \(.*{message}"):
        Classifier.load(bundle)


def _fill(raw: dict[str, Any]) -> None:
    """Give a manifest a value for each of its fields, those that may be missing included."""
    raw["labels"][0]["sequences"] = [[4, 5], [6]]
    field = {"name": "query", "before": [7], "lead": " ", "default": "what it is about"}
    document = {"name": "document", "before": [], "lead": "", "default": None}
    raw["prompt"] |= {"rendered": True, "examples": ["3" * 64], "fields": [field, document]}
    raw["prompt"] |= {"virtual_tokens": 8, "pool": "mean"}
    raw["text_limit"]["field"] = "query"
    raw["score"] = {"kind": "independent", "scale": 0.5, "shift": -1.0, "sigmoid": False}
    raw["score"]["threshold"] = 0.4
    raw["source"] |= {"directory": "checkpoint", "adapter": "lora", "adapter_sha256": "4" * 64}
    raw["source"] |= {"tokenizer": "tokenizer.json", "tokenizer_sha256": "5" * 64}
    raw["source"]["layers"] = 3
    raw["variants"][0] |= {"engine": ENGINE, "weight_error": 0.01, "operators": ["com.microsoft"]}
    raw["variants"][0]["outside_tolerance"] = True
    raw["variants"][0]["taken_over"] = {"matrices": 6, "of": 7, "embedding": True}
    parity = {"agreement_tolerance": 0.99, "margin_error": 0.03, "margin_error_tolerance": 0.1}
    raw["variants"][0]["parity"] |= parity
    raw |= {"calibration": CALIBRATION, "fit": FIT, "questions": [_question(raw["labels"])]}
    raw["labels"] = [{**label, "name": f"mood: {label['name']}"} for label in raw["labels"]]


def _question(labels: list[dict[str, Any]]) -> dict[str, Any]:
    own = {"labels": labels, "calibration": CALIBRATION, "fit": FIT}
    return {"name": "mood", "text": "How is it?", "suffix_ids": [8], **own}


def _fields(hint: Any, value: Any, path: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """Every field of a dataclass and of those below it: its path in `value`, hint and definition.

    `value` is a JSON value that has all of them.
    """
    if is_dataclass(hint):
        assert {item.name for item in fields(hint)} == set(value), path
        for item in fields(hint):
            inner = get_type_hints(hint)[item.name]
            yield f"{path}{item.name}", inner, item
            yield from _fields(inner, value[item.name], f"{path}{item.name}/")
    elif isinstance(value, list) and value:
        yield from _fields(get_args(hint)[0], value[0], f"{path}0/")
    elif NoneType in get_args(hint):
        assert value is not None, path
        yield from _fields(get_args(hint)[0], value, path)


def _dotted(path: str) -> str:
    return re.sub(r"\.(\d+)", r"[\1]", path.replace("/", "."))


@pytest.fixture
def whole(bundle: Path, edit_manifest: Edit) -> str:
    """The text of a manifest that has all fields, none at its default."""
    edit_manifest(bundle, _fill)
    return (bundle / "trimexport.json").read_text(encoding="utf-8")


def test_every_field_is_read_by_its_type_hint(whole: str) -> None:
    walked = list(_fields(Manifest, json.loads(whole)))
    assert len(walked) > 60
    for path, hint, _ in walked:
        raw, wrong = json.loads(whole), 7 if hint is bool else True
        _set(raw, path, wrong)
        message = f"{_dotted(path)} is {json.dumps(wrong)}, not "
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            read(Manifest, raw)


def test_fields_with_a_default_may_be_missing(whole: str) -> None:
    everything = read(Manifest, json.loads(whole))
    for path, _, item in _fields(Manifest, json.loads(whole)):
        raw = json.loads(whole)
        _remove(raw, path)
        if item.default is MISSING and item.default_factory is MISSING:
            with pytest.raises(ValueError, match=f"^no '{re.escape(_dotted(path))}'$"):
                read(Manifest, raw)
        else:
            assert read(Manifest, raw) != everything


def test_every_field_is_written(bundle: Path, whole: str) -> None:
    assert json.loads(to_json(read_manifest(bundle))) == json.loads(whole)


@dataclass(frozen=True)
class _Misfit:
    """A dataclass with a field of a type that JSON has no value for."""

    labels: set[str]


@pytest.mark.parametrize(
    "hint", [_Misfit, set[str], list[int], tuple[int, int], Mapping[int, str], int | str, Any]
)
def test_a_hint_that_is_not_known_is_a_mistake_in_the_program(hint: Any) -> None:
    value = {"labels": ["a"]} if hint is _Misfit else ["a"]
    with pytest.raises(TypeError, match=r"no values of the type .* are read from JSON"):
        read(hint, value)


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


def test_a_tokenizer_on_which_tokenizers_panics(bundle: Path, edit_manifest: Edit) -> None:
    path = bundle / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    definition["model"]["continuing_subword_prefix"] = "longer than any piece" * 9
    path.write_text(json.dumps(definition), encoding="utf-8")
    edit_manifest(bundle, lambda raw: raw["files"][0].update(bytes=path.stat().st_size))
    with pytest.raises(
        BundleError, match=r"cannot be read as a tokenizer \(tokenizers fails on it"
    ):
        Classifier.load(bundle)


def test_a_corrupt_tokenizer_is_one_clear_error(bundle: Path) -> None:
    _same_size(bundle / "tokenizer.json")
    with pytest.raises(BundleError, match=r"cannot be read as a tokenizer .*copy the bundle again"):
        Classifier.load(bundle)
    path = bundle / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0"}).ljust(path.stat().st_size), encoding="utf-8")
    with pytest.raises(BundleError, match="cannot be read as a tokenizer"):
        Classifier.load(bundle)
