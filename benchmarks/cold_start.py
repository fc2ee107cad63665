"""How long a new process takes to answer one sentence, in which parts, and with what memory.

    python benchmarks/cold_start.py build/sst2-gemma3-270m

Every round starts two new processes, after one of each that is not counted and leaves the files in
the system's cache. The first is `trimexport-run classify`; its memory is its high-water mark, file
pages included. The second does the same part by part and one after the other, while the first reads
tokenizer and graph at the same time: its parts add up to more. Medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from trimexport_runtime.bundle import Variant, read_manifest
from trimexport_runtime.choice import choose
from trimexport_runtime.cpu import instructions

COMMAND = "import sys; from trimexport_runtime.cli import main; sys.exit(main())"
PARTS = """
import json, sys, time
clock = time.perf_counter
seconds, began = {}, clock()
def part(name):
    global began
    seconds[name], began = clock() - began, clock()
from pathlib import Path
import trimexport_runtime.backends.onnxruntime
from trimexport_runtime.backends import DEFAULT, load_backend
from trimexport_runtime.bundle import read_manifest
from trimexport_runtime.choice import choose
from trimexport_runtime.classifier import Classifier
from trimexport_runtime.integrity import check_files
from trimexport_runtime.tokenize import TextEncoder
part("imports")
bundle, text = Path(sys.argv[1]), sys.argv[3]
manifest = read_manifest(bundle)
variant = choose(manifest, sys.argv[2])
check_files(bundle, manifest, hashes=False)
part("manifest, files' sizes")
encoder = TextEncoder.load(bundle, manifest)
part("tokenizer")
backend = load_backend(DEFAULT, bundle, manifest, variant, threads=None, token_budget=None)
part("session")
classifier = Classifier(manifest, variant, encoder, backend)
classifier.classify([text])
part("the sentence")
classifier.classify([text])
part("the sentence again")
print(json.dumps(seconds))
"""
MEMORY = """
import json, sys
from trimexport_runtime import Classifier
classifier = Classifier.load(sys.argv[1], variant=sys.argv[2])
classifier.classify([sys.argv[3]])
lines = [line.split() for line in open("/proc/self/status", encoding="ascii") if " kB" in line]
print(json.dumps({name.rstrip(":"): int(number) * 1024 for name, number, _ in lines}))
"""


def whole(bundle: Path, variant: str, text: str) -> float:
    """Seconds from the start of a process to the end of its answer."""
    command = [sys.executable, "-c", COMMAND, "classify", str(bundle), "--variant", variant, text]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if not done.stdout:
        raise click.ClickException("the process answered nothing")
    return seconds


def said(code: str, bundle: Path, variant: str, text: str) -> dict[str, float]:
    """What a new process says of itself as JSON."""
    command = [sys.executable, "-c", code, str(bundle), variant, text]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def data_bytes(bundle: Path, variant: Variant) -> int:
    """The size of the files with a variant's weights."""
    return sum((bundle / it).stat().st_size for it in variant.files if it.endswith("_data"))


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each key."""
    return {key: statistics.median(it[key] for it in rounds) for key in rounds[0]}


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--variant", help="A variant's name.  [default: the fastest]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--text", default="a gorgeous, witty, seductive movie", show_default=True)
def main(bundle: Path, variant: str | None, rounds: int, text: str) -> None:
    """Measure the first answer of BUNDLE in new processes."""
    manifest = read_manifest(bundle)
    chosen = choose(manifest, variant)
    asked = (bundle, chosen.name, text)
    found = [(whole(*asked), said(PARTS, *asked), said(MEMORY, *asked)) for _ in range(rounds + 1)]
    walls, parts, memory = zip(*found[1:], strict=True)  # the first fills the system's cache
    click.echo(
        f"{bundle}, {chosen.name}; {os.cpu_count()} cores ({', '.join(instructions() or ())})"
    )
    click.echo(f"process to answer: {statistics.median(walls):.2f} s ({min(walls):.2f} at best)")
    for name, seconds in medians(parts).items():
        click.echo(f"    {name}: {seconds:.3f} s")
    _print_memory(medians(memory), data_bytes(bundle, chosen))


def _print_memory(used: dict[str, Any], data: int) -> None:
    click.echo(
        f"peak memory (VmHWM): {used['VmHWM'] / 1e6:.0f} MB, "
        f"{used['VmHWM'] / data:.2f} times the weights' {data / 1e6:.0f} MB; "
        f"at the answer {used['VmRSS'] / 1e6:.0f} MB, of it anonymous (RssAnon) "
        f"{used['RssAnon'] / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    main()
