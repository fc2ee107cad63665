"""Backbones and the task packs that run on them."""

from __future__ import annotations

import io
import json
import threading
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

import toy_backbones as toy
from toy_backbones import expected, task_arrays, write_pack
from trimexport_runtime import (
    Backbone,
    BackendError,
    BundleError,
    Classifier,
    PackError,
    VersionError,
)
from trimexport_runtime.backbone_manifest import BACKBONE
from trimexport_runtime.bundle import Field
from trimexport_runtime.cli import main
from trimexport_runtime.pack import check_pack, load_pack, members_of, read_pack
from trimexport_runtime.tokenize import Vocabulary

TEXTS = ["a gorgeous movie", "you won a prize", ""]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy backbone. Shared: do not change it."""
    return toy.make_backbone(tmp_path_factory.mktemp("backbones") / "toy")


@pytest.fixture
def pack(backbone: Path, tmp_path: Path) -> Path:
    """A pack of it."""
    return write_pack(tmp_path / "spam.pack", backbone, task_arrays(1))


def run(*arguments: object) -> tuple[int, str]:
    """The exit status and the output of `trimexport-run`."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    return result.exit_code, result.output


def test_a_task_answers_as_its_arrays_say(backbone: Path, pack: Path) -> None:
    classifier = Backbone.load(backbone, threads=1).task(pack)
    for text in TEXTS[:2]:
        wanted = expected(backbone, task_arrays(1), text)
        np.testing.assert_allclose(classifier.logits([text])[0], wanted, atol=1e-5)
    assert classifier.labels == ("no", "yes")


def test_a_task_alone_is_loaded_as_a_classifier(backbone: Path, pack: Path) -> None:
    alone = Classifier.load(backbone, task=pack, threads=1)
    shared = Backbone.load(backbone, threads=1).task(pack)
    np.testing.assert_array_equal(alone.logits(TEXTS), shared.logits(TEXTS))


def test_tasks_of_other_shapes_share_a_session(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = []
    vocabularies = []
    load_vocabulary = Vocabulary.load

    class Counted(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            sessions.append(self)
            super().__init__(*arguments, **options)

    def counted(directory: Path) -> Vocabulary:
        vocabularies.append(directory)
        return load_vocabulary(directory)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    monkeypatch.setattr(Vocabulary, "load", counted)
    loaded = Backbone.load(backbone, threads=1)
    for seed in range(20):
        labels = [f"l{n}" for n in range(2 + seed % 3)]
        arrays = task_arrays(seed, len(labels), prefix=1 + seed)
        loaded.task(write_pack(tmp_path / f"task{seed}.pack", backbone, arrays, labels))
    assert len(sessions) == len(vocabularies) == 1
    assert list(loaded.tasks) == [f"task{seed}" for seed in range(20)]
    for seed in range(20):
        arrays = task_arrays(seed, 2 + seed % 3, prefix=1 + seed)
        logits = loaded.tasks[f"task{seed}"].logits(["one text"])[0]
        np.testing.assert_allclose(logits, expected(backbone, arrays, "one text"), atol=1e-5)


def test_a_dropped_task_answers_and_then_its_arrays_go(backbone: Path, pack: Path) -> None:
    loaded = Backbone.load(backbone, threads=1)
    classifier = loaded.task(pack)
    before = classifier.logits(TEXTS)
    loaded.drop("spam")
    assert not loaded.tasks
    np.testing.assert_array_equal(classifier.logits(TEXTS), before)
    gone = weakref.ref(classifier._backend)
    del classifier
    assert gone() is None
    with pytest.raises(BundleError, match='the backbone has no task "spam"; it has: none'):
        loaded.drop("spam")


def test_a_task_replaces_one_of_its_name(backbone: Path, pack: Path) -> None:
    loaded = Backbone.load(backbone, threads=1)
    first = loaded.task(pack)
    write_pack(pack, backbone, task_arrays(2))
    second = loaded.task(pack)
    assert loaded.tasks == {"spam": second}
    assert not np.array_equal(first.logits(TEXTS), second.logits(TEXTS))
    assert loaded.task(pack, "other") is loaded.tasks["other"]


def test_threads_add_ask_and_drop_tasks(backbone: Path, tmp_path: Path) -> None:
    packs = [
        write_pack(tmp_path / f"{seed}.pack", backbone, task_arrays(seed)) for seed in range(4)
    ]
    wanted = [Classifier.load(backbone, task=pack, threads=1).logits(TEXTS) for pack in packs]
    loaded, wrong = Backbone.load(backbone, threads=1), []

    def work(seed: int) -> None:
        for turn in range(20):
            classifier = loaded.task(packs[seed], f"{seed}-{turn}")
            loaded.drop(f"{seed}-{turn}")
            if not np.array_equal(classifier.logits(TEXTS), wanted[seed]):
                wrong.append((seed, turn))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not loaded.tasks


def test_texts_have_the_lead_of_the_pack(backbone: Path, tmp_path: Path) -> None:
    arrays = task_arrays(1)
    bare = write_pack(tmp_path / "bare.pack", backbone, arrays, fields=())
    led = write_pack(tmp_path / "led.pack", backbone, arrays)
    loaded = Backbone.load(backbone, threads=1)
    without, with_lead = loaded.task(bare), loaded.task(led)
    np.testing.assert_array_equal(without.logits([" word"]), with_lead.logits(["word"]))
    assert without.encode("word").ids.tolist() == with_lead.encode("word").ids[1:].tolist()


def test_a_task_may_have_several_fields(backbone: Path, tmp_path: Path) -> None:
    fields = (Field("query"), Field("document", before=(9,), lead=" "))
    pack = write_pack(tmp_path / "pairs.pack", backbone, task_arrays(1), fields=fields)
    classifier = Classifier.load(backbone, task=pack, threads=1)
    assert classifier.classify([("who", "Ann")])[0].tokens == len("who Ann") + 1


def test_arrays_of_a_variant_go_before_those_of_all(backbone: Path, pack: Path) -> None:
    head, members = toy.read_members(pack)
    other = task_arrays(5)["bias"]
    members |= {"fp32/bias.npy": toy.npy(other), "int8/bias.npy": toy.npy(other * 2)}
    toy.write_members(pack, toy.head(head["backbone"], head["manifest"], members), members)
    assert members_of(read_pack(pack), "int4")["bias"] == "bias.npy"
    _, arrays = load_pack(pack, "int8")
    np.testing.assert_array_equal(arrays["bias"], other * 2)
    wanted = expected(backbone, {**task_arrays(1), "bias": other}, "a text")
    logits = Classifier.load(backbone, task=pack, threads=1).logits(["a text"])[0]
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    check_pack(pack)


def test_a_pack_of_another_backbone_is_refused(pack: Path, tmp_path: Path) -> None:
    other = toy.make_backbone(tmp_path / "other", seed=8)
    mine, its = (
        json.loads((other / BACKBONE).read_text())["sha256"][:12],
        read_pack(pack).backbone[:12],
    )
    wanted = f"spam.pack is of the backbone {its}, and {other} is {mine}; write the pack again"
    with pytest.raises(PackError, match=wanted):
        Classifier.load(other, task=pack)
    status, output = run("classify", other, "--task", pack, "x")
    assert status == 1
    assert wanted in output


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path: Path) -> None:
    """A byte of the last array is another, which is found by the zip's own sum."""
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"bias.npy", 0, raw.rindex(b"PK\x01\x02")) + 140] ^= 1
    path.write_bytes(raw)


def _changed(**changes: Any) -> Callable[[Path], None]:
    """Other members, or with None one less, whose hashes are not those of `pack.json`."""

    def change(path: Path) -> None:
        head, members = toy.read_members(path)
        members |= {f"{name}.npy": raw for name, raw in changes.items()}
        toy.write_members(path, head, {it: raw for it, raw in members.items() if raw is not None})

    return change


def _packed(name: str, array: Any) -> Callable[[Path], None]:
    """An array in another's place, with the right hash; None is no array at all."""

    def change(path: Path) -> None:
        head, members = toy.read_members(path)
        members[f"{name}.npy"] = array if isinstance(array, bytes) else toy.npy(array)
        if array is None:
            del members[f"{name}.npy"]
        toy.write_members(path, toy.head(head["backbone"], head["manifest"], members), members)

    return change


def _headed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Another `pack.json`."""

    def write(path: Path) -> None:
        head, members = toy.read_members(path)
        change(head)
        toy.write_members(path, head, members)

    return write


def _compressed(path: Path) -> None:
    head, members = toy.read_members(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack.json", json.dumps(head, allow_nan=False))
        for name, raw in members.items():
            archive.writestr(name, raw)


def _no_head(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bias.npy", b"")


def _objects(path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    _packed("bias", stream.getvalue())(path)


def _huge(path: Path) -> None:
    """An array whose header promises more than there is."""
    raw = toy.npy(np.zeros(2, np.float32)).replace(b"(2,), }      ", b"(2" + b"0" * 6 + b",), }")
    _packed("bias", raw)(path)


_TOO_LONG = r"which are 601 together, and .* takes rows of up to 600; write the pack again with"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "is no pack, or its file was cut"),
        (_flipped, "Bad CRC-32 for file 'bias.npy'"),
        (_compressed, "pack.json in .* is compressed or encrypted"),
        (_no_head, "is no pack: it has no pack.json; copy the pack again"),
        (_changed(bias=None), "it has head.npy, pack.json, prefix.npy, not bias.npy, head.npy"),
        (_changed(bias=b"other"), "bias.npy in .* was altered: its SHA-256 is another"),
        (_packed("bias", b"no array"), "bias.npy in .* is no array"),
        (_objects, "bias.npy in .* is no array .*Object arrays cannot be loaded"),
        (_huge, "bias.npy in .* is no array"),
        (_packed("bias", np.zeros(2)), "bias.npy in .* is of float64; a pack's arrays are of"),
        (_packed("bias", np.zeros(2, np.int64)), r"bias in .* is int64 \[2\], and .* takes float3"),
        (_packed("bias", np.zeros((2, 2), np.float32)), r"bias in .* is float32 \[2, 2\]"),
        (_packed("head", np.zeros((9, 2), np.float32)), r"\[9, 2\], and .* \[16, 'outputs'\]"),
        (_packed("more", np.zeros(2, np.float32)), "arrays for bias, head, more, prefix, and the"),
        (_packed("../bias", np.zeros(2, np.float32)), 'member "../bias.npy" is no NAME.npy and no'),
        (_packed("a/b/c", np.zeros(2, np.float32)), 'member "a/b/c.npy" is no NAME.npy and no VAR'),
        (_headed(lambda head: head.pop("backbone")), "is damaged .no 'backbone'."),
        (_headed(lambda head: head.pop("format_version")), "has no format_version, so it is not"),
        (_headed(lambda head: head.pop("manifest")), "is damaged .* is null, not an object"),
        (_headed(lambda head: head["manifest"].update(variants=[])), "needs one variant at least"),
        (_headed(lambda head: head["manifest"]["text_limit"].update(tokens=598)), _TOO_LONG),
        (_headed(lambda head: head["manifest"]["prompt"].update(virtual_tokens=98)), _TOO_LONG),
        (
            _headed(lambda head: head["manifest"]["variants"][0].update(name="int8")),
            'the pack .*spam.pack has no variant "fp32"; it has: int8',
        ),
        (lambda path: path.write_bytes(b""), "is no pack, or its file was cut"),
        (lambda path: path.unlink(), "does not exist; give a file that `trimexport pack -o` wrote"),
        (lambda path: (path.unlink(), path.mkdir()), "is a directory, and a pack is one file"),
    ],
)
def test_a_bad_pack_is_refused_in_one_message(
    backbone: Path, pack: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(pack)
    with pytest.raises(BundleError, match=message):
        Classifier.load(backbone, task=pack)
    status, output = run("classify", backbone, "--task", pack, "x")
    assert status == 1
    assert len(output.splitlines()) == 1
    assert output.startswith("Error: ")


def test_a_member_that_is_missing_an_array_is_named(backbone: Path, pack: Path) -> None:
    _packed("bias", None)(pack)
    with pytest.raises(PackError, match="arrays for head, prefix, and the backbone's graph takes"):
        Classifier.load(backbone, task=pack)


def test_a_pack_may_fill_the_backbone_s_rows(backbone: Path, pack: Path) -> None:
    _headed(lambda head: head["manifest"]["text_limit"].update(tokens=597))(pack)
    assert Classifier.load(backbone, task=pack).classify(["x" * 700])[0].tokens == 597


def test_a_newer_pack_is_refused(backbone: Path, pack: Path) -> None:
    _headed(lambda head: head.update(format_version=2))(pack)
    with pytest.raises(VersionError, match="has format_version 2, this runtime reads up to 1"):
        Classifier.load(backbone, task=pack)


@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime-tensorrt"])
def test_tensorrt_runs_no_packs(backbone: Path, name: str) -> None:
    with pytest.raises(BackendError, match=f"packs do not run with {name}, whose engines are"):
        Backbone.load(backbone, backend=name)


def test_what_is_no_backbone_says_what_to_give(backbone: Path, pack: Path, bundle: Path) -> None:
    for command in ("classify", "explain", "serve"):
        text = () if command == "serve" else ("x",)
        _, output = run(command, backbone, *text)
        assert f"{backbone} is a backbone, which answers nothing without a task; give" in output
        _, output = run(command, pack, *text)
        assert f"{pack} is a task pack, which runs on its backbone; give that" in output
    _, output = run("classify", bundle, "--task", pack, "x")
    assert f"{bundle} is not a backbone: it has no backbone.json; give" in output
    with pytest.raises(BundleError, match="is not a backbone"):
        Backbone.load(bundle)
    with pytest.raises(BundleError, match='the backbone has no variant "int8"; it has: fp32'):
        Backbone.load(backbone, variant="int8")
    with pytest.raises(BackendError, match="token_budget is 0; give 1 or more"):
        Backbone.load(backbone, token_budget=0)


def test_classify_explain_and_rerank_take_a_task(backbone: Path, tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "spam.pack", backbone, task_arrays(1))
    fields = (Field("query"), Field("document", before=(9,), lead=" "))
    pairs = write_pack(tmp_path / "pairs.pack", backbone, task_arrays(1), fields=fields)
    status, output = run("classify", backbone, "--task", pack, "you won", "--json")
    answer = Classifier.load(backbone, task=pack).classify(["you won"])[0]
    assert status == 0
    assert json.loads(output)["probabilities"]["yes"] == answer.probabilities[1]
    assert run("explain", backbone, "--task", pack, "you won")[0] == 0
    status, output = run("rerank", backbone, "who", "Ann", "Bob", "--task", pairs)
    assert status == 0
    assert len(output.splitlines()) == 2


def test_a_job_runs_a_task(backbone: Path, pack: Path, tmp_path: Path) -> None:
    texts, output = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    texts.write_text("you won\na film\n")
    status, said = run("classify", backbone, "--task", pack, "--file", texts, "-o", output)
    assert status == 0, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    answers = Classifier.load(backbone, task=pack).classify(["you won", "a film"])
    assert [row["label"] for row in rows] == [answer.label for answer in answers]


def test_info_shows_backbones_and_tasks(backbone: Path, pack: Path) -> None:
    status, output = run("info", backbone, "--check")
    assert status == 0
    assert "files       2" in output
    assert "all ok" in output
    sha256 = json.loads(run("info", backbone, "--json")[1])["sha256"]
    status, output = run("info", backbone, "--task", pack)
    assert status == 0
    assert output.startswith(f"task        {pack} (3 arrays")
    value = json.loads(run("info", backbone, "--task", pack, "--json", "--check")[1])
    assert value["backbone"] == sha256
    assert value["check"] == "ok"
    assert sorted(value["arrays"]) == ["bias.npy", "head.npy", "prefix.npy"]


def test_info_check_finds_what_was_altered(pack: Path, tmp_path: Path) -> None:
    copy = toy.make_backbone(tmp_path / "copy")
    _changed(bias=b"other")(pack)
    status, output = run("info", copy, "--task", pack, "--check")
    assert (status, "was altered" in output) == (1, True)
    graph = copy / "onnx" / "model.onnx"
    raw = bytearray(graph.read_bytes())
    raw[200] ^= 1
    graph.write_bytes(raw)
    status, output = run("info", copy, "--check")
    assert (status, f"{graph} was altered" in output) == (1, True)
