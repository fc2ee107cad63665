"""What `trimexport-run info` says of backbones and of tasks on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from .backbone_manifest import BackboneManifest
from .pack import Pack
from .render import _backend, _megabytes, _runtime, _variant_text, info_json, info_text
from .visible import visible


def backbone_json(directory: Path, manifest: BackboneManifest, *, checked: bool) -> str:
    """A backbone's manifest as JSON, with what runs packs on it here; `checked` says that the
    hashes were right."""
    value = {
        "backbone": str(directory),
        **asdict(manifest),
        "runtime": _runtime(directory, manifest),
        **({"check": "ok"} if checked else {}),
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def backbone_text(directory: Path, manifest: BackboneManifest, *, checked: bool) -> str:
    """The same for people."""
    runtime, size = _runtime(directory, manifest), sum(entry.bytes for entry in manifest.files)
    rows = [
        ("backbone", f"{directory} (format {manifest.format_version})"),
        ("sha256", manifest.sha256),
        ("source", f"{manifest.source.model} ({manifest.source.architecture})"),
        ("limit", f"{manifest.limit:,} tokens of prompt and text together"),
        *(("variant", _variant_text(variant)) for variant in manifest.variants),
        ("runs on", f"onnxruntime {runtime['onnxruntime']}: {runtime['provider']}"),
        *(("backend", _backend(backend)) for backend in runtime["backends"]),
        ("files", f"{len(manifest.files)}, {_megabytes(size)}{', all ok' * checked}"),
    ]
    return _table(rows)


def task_json(directory: Path, backbone: BackboneManifest, pack: Pack, *, checked: bool) -> str:
    """A task's manifest as JSON, with its backbone's files, and what runs it here."""
    manifest = replace(pack.manifest, files=backbone.files)
    value = {
        "task": str(pack.path),
        "backbone": pack.backbone,
        "arrays": dict(pack.members),
        "notes": list(pack.notes),
        **json.loads(info_json(directory, manifest, checked=checked)),
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def task_text(directory: Path, backbone: BackboneManifest, pack: Pack, *, checked: bool) -> str:
    """The same for people."""
    size = f"{pack.path.stat().st_size / 1e3:,.1f} kB"
    rows = [
        ("task", f"{visible(str(pack.path))} ({len(pack.members)} arrays, {size})"),
        *(("note", visible(note)) for note in pack.notes),
    ]
    manifest = replace(pack.manifest, files=backbone.files)
    return _table(rows) + "\n" + info_text(directory, manifest, checked=checked)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<12}{value}".rstrip() for name, value in rows)
