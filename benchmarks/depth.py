"""How many of a decoder's layers a fitted head needs: accuracy by depth, in PyTorch float32.

    python benchmarks/depth.py agnews CHECKPOINT --data DATA --cache CACHE
    python benchmarks/depth.py sst2 CHECKPOINT --data DATA --cache CACHE

prints, for the last token's hidden state and for the mean over the text's own tokens, behind each
number of layers and the model's final norm, the accuracy of a logistic regression (C 0.01,
standardised) on 500 test texts: mean and standard deviation over five draws of 16 and of 64
training texts a label. The draws come from the same 100 texts a label, so those of 64 overlap. The
last lines are what `auto` gives: in each draw the least depth whose cross-validated accuracy is
within one standard error of the best, judged on that draw's training texts alone.

CACHE keeps the hidden states of a model on a task; delete its file after a change here. With
`--json FILE` what is printed is written too, for depth_times.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimexport.tuning.depth import Depth, least_depth

PROMPTS = {"agnews": ("News:", "\nTopic:"), "sst2": ("Review:", "\nSentiment:")}
TRAIN = {"agnews": "train_title_desc.jsonl", "sst2": "train.jsonl"}
POOL, TEST, SHOTS, DRAWS, FOLDS = 100, 500, (16, 64), 5, 5
POOLS = ("last", "mean")

Pairs = list[tuple[str, str]]
Floats = npt.NDArray[np.floating]
Golds = npt.NDArray[np.str_]


def read_pairs(path: Path) -> Pairs:
    """Texts and labels of a `.jsonl`, each text once, in an order by their hashes."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = {row["text"]: row["label"] for row in rows}
    return sorted(pairs.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())


def of_each(pairs: Pairs, number: int) -> Pairs:
    """The first `number` pairs of each label."""
    labels = sorted({label for _, label in pairs})
    return [pair for label in labels for pair in [p for p in pairs if p[1] == label][:number]]


@torch.no_grad()
def states(model: Any, tokenizer: Any, task: str, texts: Sequence[str]) -> Floats:
    """Float32 [texts, layers, 2, hidden]: behind each layer and the final norm, the last token's
    hidden state and the mean of the text's own."""
    before, behind = PROMPTS[task]
    prefix = tokenizer(before).input_ids
    suffix = tokenizer(behind, add_special_tokens=False).input_ids
    made = []
    for text in texts:
        own = tokenizer(" " + text, add_special_tokens=False).input_ids
        ids = torch.tensor([[*prefix, *own, *suffix]])
        # The last of them has been through the norm already.
        *inner, last = model.model(input_ids=ids, output_hidden_states=True).hidden_states[1:]
        layers = torch.stack([*(model.model.norm(each) for each in inner), last])[:, 0]
        mean = layers[:, len(prefix) : len(prefix) + len(own)].mean(1)
        made.append(torch.stack([layers[:, -1], mean], 1).numpy())
    return np.stack(made)


def cached_states(task: str, checkpoint: Path, cache: Path, texts: Sequence[str]) -> Floats:
    """`states`, kept in a file."""
    file = cache / f"{task}-{checkpoint.name}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        np.save(file, states(model, tokenizer, task, texts))
    found: Floats = np.load(file)
    return found


def drawn(gold: Golds, shots: int, seed: int) -> npt.NDArray[np.int64]:
    """Places of `shots` texts of each label."""
    random = np.random.default_rng(seed)
    return np.concatenate(
        [random.permutation(np.flatnonzero(gold == label))[:shots] for label in np.unique(gold)]
    )


def scores(hidden: Floats, gold: Golds, test: Floats, test_gold: Golds) -> tuple[float, ...]:
    """Accuracy on the test, and the mean and standard error of the folds' on the examples."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    folds = cross_val_score(model, hidden, gold, cv=StratifiedKFold(FOLDS))
    error = float(folds.std(ddof=1) / FOLDS**0.5)
    return float(model.fit(hidden, gold).score(test, test_gold)), float(folds.mean()), error


@click.command()
@click.argument("task", type=click.Choice(sorted(PROMPTS)))
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--cache", required=True, type=click.Path(path_type=Path))
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write it here too.")
def main(task: str, checkpoint: Path, data: Path, cache: Path, output: Path | None) -> None:
    """Print accuracy by depth."""
    test = read_pairs(data / task / "test.jsonl")[:TEST]
    known = {text for text, _ in test}
    train = [pair for pair in read_pairs(data / task / TRAIN[task]) if pair[0] not in known]
    train = of_each(train, POOL)
    hidden = cached_states(task, checkpoint, cache, [text for text, _ in train + test])
    golds = np.array([label for _, label in train + test])
    gold, test_gold = golds[: len(train)], golds[len(train) :]
    curves = [
        report(hidden[:, :, place], gold, test_gold, pool, shots)
        for place, pool in enumerate(POOLS)
        for shots in SHOTS
    ]
    if output is not None:
        written = {"task": task, "model": checkpoint.name, "curves": curves}
        output.write_text(json.dumps(written, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def report(
    hidden: Floats, gold: Golds, test_gold: Golds, pool: str, shots: int
) -> dict[str, object]:
    """Print the rows of one pool and one number of shots, and return them: accuracy in percent by
    depth and draw, and the depth that each draw chose."""
    number = len(gold)
    found = np.empty((DRAWS, hidden.shape[1], 3))
    for seed in range(DRAWS):
        places = drawn(gold, shots, seed)
        for depth in range(hidden.shape[1]):
            found[seed, depth] = scores(
                hidden[places, depth], gold[places], hidden[number:, depth], test_gold
            )
    click.echo(f"\n{pool}, {shots} a label\n\n| layers | accuracy | sd |\n| ---: | ---: | ---: |")
    for depth in range(hidden.shape[1]):
        own = 100 * found[:, depth, 0]
        click.echo(f"| {depth + 1} | {own.mean():.1f} | {own.std(ddof=1):.1f} |")
    chosen = [
        least_depth(tuple(Depth(place + 1, *row[1:]) for place, row in enumerate(each.tolist())))
        for each in found
    ]
    own = np.array([100 * each[depth - 1, 0] for each, depth in zip(found, chosen, strict=True)])
    depths = ", ".join(map(str, chosen))
    click.echo(f"| auto: {depths} | {own.mean():.1f} | {own.std(ddof=1):.1f} |")
    by_depth = np.round(100 * found[:, :, 0].T, 2).tolist()
    return {"pool": pool, "shots": shots, "accuracy": by_depth, "chosen": chosen}


if __name__ == "__main__":
    main()
