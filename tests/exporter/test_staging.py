"""An output appears whole or not at all, whatever happens while it is made."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tiny
from trimexport import BuildSpec, CheckpointError, OutputError, Texts, build
from trimexport import atomic as staging
from trimexport.atomic import check_output, staged
from trimexport.progress import Silent
from trimexport_runtime import interruption

GLIBC = hasattr(ctypes.CDLL(None), "mallinfo2")
OLD = {"trimexport.json": b"{}", "onnx/model.onnx": b"old"}


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    """Python's own handler, also where the tests were started as a job that ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where a bundle is to go: nothing there, nothing beside it."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place" / "bundle"


@pytest.fixture
def old(output: Path) -> Path:
    """A bundle that is there already."""
    for name, data in OLD.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(data)
    return output


def _beside(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


def test_it_appears_when_the_block_ends(output: Path) -> None:
    with staged(output, force=False) as work:
        (work / "file").write_text("new", encoding="utf-8")
        assert work.parent == output.parent
        assert not output.exists()
    assert tiny.snapshot(output) == {"file": b"new"}
    assert _beside(output) == ["bundle"]
    assert output.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_does_not_appear_when_the_block_fails(
    output: Path, failure: type[BaseException]
) -> None:
    with pytest.raises(failure):
        _fail_inside(output, failure)
    assert _beside(output) == []


def _fail_inside(output: Path, failure: type[BaseException]) -> None:
    with staged(output, force=True) as work:
        (work / "file").write_text("new", encoding="utf-8")
        raise failure


def _end_well(output: Path) -> None:
    with staged(output, force=True) as work:
        (work / "file").write_text("new", encoding="utf-8")


def test_folders_made_for_it_go_with_it(output: Path) -> None:
    deep = output / "a" / "b"
    with pytest.raises(ValueError, match="no"), staged(deep, force=False):
        raise ValueError("no")
    assert _beside(output) == []
    with staged(deep, force=False):
        pass
    assert deep.is_dir()


def test_what_exists_needs_force(old: Path) -> None:
    with pytest.raises(OutputError, match="bundle exists; give --force to replace it"):
        check_output(old, force=False)
    with pytest.raises(OutputError, match="exists"), staged(old, force=False):
        pytest.fail("the block must not run")
    assert tiny.snapshot(old) == OLD


@pytest.mark.parametrize(
    ("force", "message"), [(False, "bundle exists; give --force"), (True, "is not a bundle")]
)
def test_what_appears_meanwhile_is_kept(
    output: Path, tmp_path: Path, force: bool, message: str
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "precious").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=message), staged(output, force):
        shutil.copytree(precious, output)
    assert tiny.snapshot(output) == {"precious": b"mine"}
    assert _beside(output) == ["bundle"]


def test_force_replaces_a_bundle(old: Path) -> None:
    with staged(old, force=True) as work:
        (work / "file").write_text("new", encoding="utf-8")
        assert tiny.snapshot(old) == OLD
    assert tiny.snapshot(old) == {"file": b"new"}
    assert _beside(old) == ["bundle"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_the_old_bundle_survives(old: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        _fail_inside(old, failure)
    assert tiny.snapshot(old) == OLD
    assert _beside(old) == ["bundle"]


@pytest.mark.parametrize(
    ("function", "fails"), [("_replace", False), ("_clean_up", False), ("_clean_up", True)]
)
def test_impatience_leaves_nothing_behind(
    old: Path, monkeypatch: pytest.MonkeyPatch, function: str, fails: bool
) -> None:
    original = getattr(staging, function)

    def interrupted(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        original(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(staging, function, interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _fail_inside(old, KeyboardInterrupt) if fails else _end_well(old)
    assert tiny.snapshot(old) == (OLD if fails else {"file": b"new"})
    assert _beside(old) == ["bundle"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_an_interruption_just_before_the_clean_up(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, calls = interruption.signals_held, []

    def late() -> object:
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return held()

    monkeypatch.setattr(interruption, "signals_held", late)
    with pytest.raises(KeyboardInterrupt):
        _fail_inside(old, ValueError)
    assert len(calls) == 2
    assert tiny.snapshot(old) == OLD
    assert _beside(old) == ["bundle"]


def test_the_old_bundle_comes_back_when_the_new_one_cannot_take_its_place(old: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), staged(old, force=True) as work:
        shutil.rmtree(work)
    assert tiny.snapshot(old) == OLD
    assert _beside(old) == ["bundle"]


def test_force_does_not_replace_what_is_no_bundle(output: Path) -> None:
    output.mkdir()
    (output / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not a bundle, so --force does not replace it"):
        check_output(output, force=True)
    assert tiny.snapshot(output) == {"thesis.txt": b"mine"}


def test_force_does_not_replace_a_file(output: Path) -> None:
    output.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not a bundle"):
        check_output(output, force=True)


def test_force_replaces_an_empty_directory(output: Path) -> None:
    output.mkdir()
    with staged(output, force=True) as work:
        (work / "file").write_text("new", encoding="utf-8")
    assert tiny.snapshot(output) == {"file": b"new"}


def test_a_link_stays_and_its_target_is_replaced(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    with staged(link, force=True) as work:
        (work / "file").write_text("new", encoding="utf-8")
    assert link.is_symlink()
    assert tiny.snapshot(old) == {"file": b"new"}
    assert _beside(old) == ["bundle"]


@pytest.mark.parametrize("name", ["file/bundle", "n" * 300])
def test_a_place_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written"), staged(tmp_path / name, False):
        pytest.fail("the block must not run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_without_permission(output: Path) -> None:
    output.parent.chmod(0o500)
    try:
        if os.access(output.parent, os.W_OK):
            pytest.skip("this user may write where nobody may")
        with pytest.raises(OutputError, match="Permission denied"), staged(output, False):
            pytest.fail("the block must not run")
    finally:
        output.parent.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk of .* is full; nothing was kept. Free some room"),
        (errno.EDQUOT, "the disk of .* is full"),
        (errno.EROFS, "cannot be written .*Read-only file system"),
        (errno.EIO, "cannot be written .*Input/output error"),
    ],
)
def test_what_the_system_refuses_is_said(output: Path, number: int, message: str) -> None:
    with pytest.raises(OutputError, match=message), staged(output, force=False):
        raise OSError(number, os.strerror(number))
    assert _beside(output) == []


def test_what_cannot_be_read_is_not_taken_for_the_output(old: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "model" / "config.json", old / "onnx" / "gone.onnx"):
        with (
            pytest.raises(
                CheckpointError, match=rf"^{source} cannot be read \(No such file or dir"
            ),
            staged(old, force=True),
        ):
            source.read_bytes()
    with (
        pytest.raises(OutputError, match=rf"^{old} cannot be written \(No such file or directory"),
        staged(old, force=True) as work,
    ):
        (work / "none" / "file").write_text("new")
    assert tiny.snapshot(old) == OLD
    assert _beside(old) == ["bundle"]


def test_a_copy_onto_a_full_disk_names_the_disk(old: Path, tmp_path: Path) -> None:
    """As `shutil.copyfile` says it, with the source's name first."""

    def copy(work: Path) -> None:
        source, target = str(tmp_path / "a"), str(work / "a")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, None, target)

    with (
        pytest.raises(OutputError, match=rf"the disk of {old.parent} is full; nothing was kept"),
        staged(old, force=True) as work,
    ):
        copy(work)


class Vanishing(Silent):
    """Progress in whose course a file of the model goes away."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        self._file.unlink(missing_ok=True)
        yield lambda done: None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_of_the_model_that_goes_away(tiny_copy: Path, output: Path, name: str) -> None:
    spec = BuildSpec(
        precision=("fp32",),
        model=str(tiny_copy),
        labels=("positive", "negative"),
        prompt=tiny.PROMPT,
    )
    with pytest.raises(CheckpointError, match=rf"^{tiny_copy / name} cannot be read \(No such"):
        build(spec, output, sample=Texts(("a",)), progress=Vanishing(tiny_copy / name))
    assert _beside(output) == []


BUILD = """
import sys
from pathlib import Path
from trimexport import BuildSpec, Texts, TrimexportError, build
labels = ("positive", "negative")
spec = BuildSpec(
    precision=("fp32",), model=sys.argv[1], labels=labels, prompt="R: {text}\\nS:"
)
try:
    build(spec, Path(sys.argv[2]), sample=Texts(("a",)), force=True)
except TrimexportError as error:
    print(type(error).__name__, error)
"""


MAPPED = """
import ctypes
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.mallinfo2.restype = ctypes.c_void_p, [ctypes.c_size_t], Info
c.free.argtypes = [ctypes.c_void_p]
c.free(c.malloc(16 << 20))  # from now on glibc takes smaller blocks from the heap
before = c.mallinfo2().e
c.malloc(8 << 20)
print("mapped apart:", c.mallinfo2().e - before >= 8 << 20)
"""
"""Says whether a large block is mapped separately, after what came before."""


def _build(
    model: Path, output: Path, *before: str, limit: int | None = None, after: str = ""
) -> str:
    """Build in a process of its own, whose files may have `limit` bytes."""

    def cap() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [*before, sys.executable, "-c", f"{BUILD}{after}", str(model), str(output)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, preexec_fn=cap, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_build_whose_files_cannot_grow(tiny_model: Path, old: Path) -> None:
    said = _build(tiny_model, old, limit=700_000, after=MAPPED if GLIBC else "")
    assert said.startswith("OutputError")
    assert "cannot be written (File too large); nothing was kept" in said
    assert not GLIBC or said.endswith("mapped apart: False\n")  # the allocator is as it was
    assert tiny.snapshot(old) == OLD
    assert _beside(old) == ["bundle"]


def test_a_build_on_a_full_disk(tiny_model: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, on a file system that is smaller than the bundle."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=1m none '{disk}'"
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a file system of a private mount namespace is not permitted here")
    script = f"""{mount} && mkdir '{disk}/old' && echo '{{}}' > '{disk}/old/trimexport.json' &&
        "$@" && ls -A '{disk}' '{disk}/old'"""
    said = _build(tiny_model, disk / "old", "unshare", "-m", "sh", "-c", script, "sh")
    assert said.startswith(f"OutputError the disk of {disk} is full; nothing was kept")
    assert said.splitlines()[1:] == [f"{disk}:", "old", "", f"{disk}/old:", "trimexport.json"]
