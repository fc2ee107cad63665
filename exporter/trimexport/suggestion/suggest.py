"""The comparison of words for a spec's labels, on examples whose labels are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from trimexport.errors import SpecError
from trimexport.memory import release
from trimexport.model.layerwise import LayerwiseModel
from trimexport.model.vocabulary import answer_states, log_normaliser, mean_probabilities
from trimexport.planning import Setting, set_up
from trimexport.progress import Progress, Silent
from trimexport.prompt.template import places_of
from trimexport.source.checkpoint import read_config
from trimexport.source.families import family_of, is_classifier
from trimexport.source.hub import locate_config
from trimexport.spec import SOFTMAX, BuildSpec
from trimexport.texts import Texts, labelled_texts, labels_without_texts

from .candidates import NAME, Candidate, candidates_of, check_synonyms
from .search import Answers, Combination, over_others, score, search


@dataclass(frozen=True)
class Word:
    """A candidate and its probability among the whole vocabulary: the mean over the examples of its
    own label, and the mean over those of the others."""

    candidate: Candidate
    own: float
    others: float


@dataclass(frozen=True)
class Choice:
    """A word for each label, and what the combination is worth on the examples."""

    words: tuple[Candidate, ...]
    scores: Combination


@dataclass(frozen=True)
class Suggestion:
    """The words that were compared, and the result.

    `examples` counts the examples of each label. `words` are each label's candidates, the likeliest
    for its examples first. `choices` are the combinations, the best first, with `equal_from` and
    `whole` as in `search.Search`. `names` is the combination of the labels' own names; if they
    cannot stand for the labels it is None, and `no_names` says why. `source` is what the examples
    are called.
    """

    spec: BuildSpec
    examples: tuple[int, ...]
    words: tuple[tuple[Word, ...], ...]
    choices: tuple[Choice, ...]
    equal_from: float
    whole: bool
    names: Choice | None
    no_names: str | None
    source: str

    @property
    def best_spec(self) -> BuildSpec:
        """The spec with the words of the first choice."""
        words = zip(self.spec.labels, self.choices[0].words, strict=True)
        return replace(self.spec, verbalizers={label: (word.word,) for label, word in words})


def _refuse_classifier(spec: BuildSpec) -> None:
    """Raise SpecError if the model was fine-tuned as a classifier."""
    architecture, _ = family_of(read_config(locate_config(spec.model, spec.revision)), spec.model)
    if is_classifier(architecture):
        raise SpecError(
            f"{spec.model} is a fine-tuned classifier, whose labels need no words: it says nothing "
            "but labels"
        )


def _refuse_score(spec: BuildSpec) -> None:
    """Raise SpecError if the score is no softmax over labels, by which words are compared."""
    if spec.score != SOFTMAX:
        raise SpecError(
            f"the score is {spec.score}, and words are compared by a softmax over labels; leave it "
            "out here, with two labels or more, and give it to `trimexport build`"
        )


def _require_each(examples: Texts, labels: Sequence[str]) -> None:
    """Raise SpecError if a label has no example."""
    if absent := labels_without_texts(examples, labels):
        raise SpecError(
            f"{examples.source} has no example of {', '.join(absent)}; words are chosen by "
            "examples of every label, so add some"
        )


def suggest(
    spec: BuildSpec,
    examples: Path | Texts,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    *,
    progress: Progress | None = None,
) -> Suggestion:
    """Compare words for the spec's labels on examples, in one pass of them through the model.

    Args:
        spec: the model, the prompt and the labels; its verbalizers are ignored.
        examples: texts with labels, at least one of each, or a `.jsonl`, `.csv` or `.parquet` of
            them with the columns `text`, or those of the prompt's fields, and `label`.
        synonyms: the user's words, by label.

    Raises:
        SpecError: examples that cannot be read or have other labels, a label without an example or
            for which there is no word, words or a prompt that cannot be read, or a model that was
            fine-tuned as a classifier.
        CheckpointError: a model that cannot be read or is not supported.
    """
    progress, synonyms = progress or Silent(), synonyms or {}
    _refuse_classifier(spec)
    _refuse_score(spec)
    check_synonyms(synonyms, spec.labels)
    sample = labelled_texts(examples, spec.labels, fields=places_of(spec.prompt))
    _require_each(sample, spec.labels)
    setting = set_up(spec)
    release()
    model = LayerwiseModel(setting.checkpoint)
    gold = sample.places(spec.labels)
    with progress.bar("reading the examples", len(sample.texts)) as tick:
        hidden = answer_states(model, setting, sample.texts, tick)
    with progress.bar("reading the vocabulary", 2) as tick:
        normaliser = log_normaliser(model, hidden)
        tick(1)
        places = torch.from_numpy(gold)
        means = mean_probabilities(model, hidden, normaliser, places, len(spec.labels)).numpy()
        tick(1)
    pools = _pools(setting, synonyms, means)
    tokens = list(dict.fromkeys(candidate.token_id for pool in pools for candidate in pool))
    with torch.no_grad():
        logits = model.cut_head(tokens)(hidden)
        probabilities = (logits - normaliser[:, None]).exp()
    answers = Answers(logits.numpy(), probabilities.numpy(), gold)
    return _suggestion(spec, answers, pools, tokens, means, sample.source)


def _pools(
    setting: Setting, synonyms: Mapping[str, Sequence[str]], means: npt.NDArray[np.float32]
) -> tuple[tuple[Candidate, ...], ...]:
    """Each label's candidates.

    Args:
        means: every token's mean probability over each label's examples, float32 [labels, tokens].

    Raises:
        SpecError: a label has none, or a synonym cannot be read.
    """
    preferred = over_others(means)
    pools = tuple(
        candidates_of(label, synonyms.get(label, ()), preferred[place], setting)
        for place, label in enumerate(setting.spec.labels)
    )
    for label, pool in zip(setting.spec.labels, pools, strict=True):
        if not pool:
            raise SpecError(
                f'there is no word for label "{label}": its name cannot be read after this prompt, '
                f'and the model has none for its examples; give some with --synonyms "{label}=word"'
            )
    return pools


def _suggestion(
    spec: BuildSpec,
    answers: Answers,
    pools: Sequence[Sequence[Candidate]],
    tokens: Sequence[int],
    means: npt.NDArray[np.float32],
    source: str,
) -> Suggestion:
    """Search the combinations of the pools' candidates.

    Args:
        answers: a column for each of `tokens`, in their order.
    """
    column_of = {token: column for column, token in enumerate(tokens)}
    by_column = [{column_of[word.token_id]: word for word in pool} for pool in pools]
    result = search(answers, [list(words) for words in by_column])
    if not result.combinations:
        raise SpecError(
            "no choice of words tells the labels apart: all begin with the same tokens; give other "
            "words with --synonyms label=word"
        )

    def choice(combination: Combination) -> Choice:
        columns = zip(by_column, combination.columns, strict=True)
        return Choice(tuple(words[column] for words, column in columns), combination)

    no_names = _no_names(spec.labels, pools)
    first = np.array([[column_of[pool[0].token_id] for pool in pools]], np.int64)
    return Suggestion(
        spec=spec,
        examples=tuple(np.bincount(answers.gold, minlength=len(pools)).tolist()),
        words=tuple(_words(pool, place, means) for place, pool in enumerate(pools)),
        choices=tuple(map(choice, result.combinations)),
        equal_from=result.equal_from,
        whole=result.whole,
        names=None if no_names else choice(score(answers, first)[0]),
        no_names=no_names,
        source=source,
    )


def _no_names(labels: Sequence[str], pools: Sequence[Sequence[Candidate]]) -> str | None:
    """The reason why the labels' own names cannot stand for them, or None if they can."""
    for label, pool in zip(labels, pools, strict=True):
        if pool[0].origin != NAME:
            return f'"{label}" cannot be read after this prompt'
    (token, count) = Counter(pool[0].token for pool in pools).most_common(1)[0]
    if count < 2:
        return None
    return f'several begin with "{token}", so a build reads them whole'


def _words(
    pool: Sequence[Candidate], place: int, means: npt.NDArray[np.float32]
) -> tuple[Word, ...]:
    """The candidates of the label at `place`, the likeliest for its examples first."""
    others = np.delete(means, place, axis=0).mean(axis=0)
    words = [
        Word(candidate, float(means[place, candidate.token_id]), float(others[candidate.token_id]))
        for candidate in pool
    ]
    return tuple(sorted(words, key=lambda word: -word.own))
