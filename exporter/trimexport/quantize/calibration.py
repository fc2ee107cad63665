"""What calibration texts make the matrices of a model read."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trimexport.errors import SpecError
from trimexport.graph.classifier import split_prefix
from trimexport.model.layerwise import LayerwiseModel
from trimexport.planning import Plan, whole_ids
from trimexport.progress import Progress
from trimexport.records import all_text, spelling
from trimexport.texts import Texts

from .int8 import Factors
from .matrices import TRANSPOSED
from .second_moments import SecondMoments
from .smooth import Activations

FEW = 10
"""Fewer texts than these are too few to calibrate on."""


class Largest:
    """The largest absolute values of the inputs that were shown; `found` has float32 [inputs] for
    each parameter."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def add(self, parameter: str, inputs: torch.Tensor) -> None:
        """Take note of some positions, float32 [positions, inputs]."""
        here = inputs.abs().amax(0)
        self.found[parameter] = torch.maximum(self.found.get(parameter, here), here)


@dataclass(frozen=True)
class Calibration:
    """Texts that the model reads behind the prompt, at the positions that the graph computes: all
    but those of the compiled prefix. Where labels are read whole, each text has the beginning of a
    label behind it, one after the other.

    `room` is a directory for what is too much for memory. Below, `factors` are weight name -> what
    a matrix's inputs were smoothed and rotated by before they are looked at; those of the others
    are as the model makes them. `known` are the last hidden states, float32 [hidden], of sequences
    that the model has read.
    """

    planned: Plan
    model: LayerwiseModel
    texts: Texts
    room: Path
    progress: Progress
    known: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict, repr=False)

    @functools.cached_property
    def ids(self) -> list[tuple[int, ...]]:
        """The whole prompts of the texts, which take a tokenizer that is slow to make."""
        return whole_ids(self.planned, self.texts.texts)

    def states(self, sequences: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """What the output layer reads after whole prompts, float32 [n, hidden]. The model reads
        those that it has not read yet."""
        new = [ids for ids in dict.fromkeys(sequences) if ids not in self.known]
        if new:
            with self.progress.bar("expected states (untrimmed)", len(new)) as tick:
                self.known.update(zip(new, self.model.hidden_states(new, tick), strict=True))
        return torch.stack([self.known[ids] for ids in sequences])

    def ranges(self, factors: Mapping[str, Factors]) -> Activations:
        """The largest absolute value of each input of every matrix: parameter name -> float32
        [inputs]."""
        largest = Largest()
        self._show(largest.add, factors)
        return largest.found

    def second_moments(self, factors: Mapping[str, Factors]) -> SecondMoments:
        """The second moments of every matrix's inputs, those of the prompt's own tokens included:
        it often holds examples, which are more like the texts to come than any that ship. The
        first token of all is like no other and is left out."""
        found = SecondMoments(Path(tempfile.mkdtemp(dir=self.room)))
        self._show(found.add, factors, prompt_from=1)
        found.flush()
        return found

    def _show(
        self,
        see: Callable[[str, torch.Tensor], None],
        factors: Mapping[str, Factors],
        prompt_from: int | None = None,
    ) -> None:
        sequences, skip = self._sequences()
        known = {name.removesuffix(TRANSPOSED): each for name, each in factors.items()}

        def changed(name: str, inputs: torch.Tensor) -> None:
            see(name, known[name].undo(inputs) if name in known else inputs)

        with self.progress.bar("calibrating", len(sequences)) as tick:
            states = self.model.show_inputs(sequences, skip, changed, tick, prompt_from)
        self.known.update(zip(sequences, states, strict=True))

    def _sequences(self) -> tuple[list[tuple[int, ...]], int]:
        """Whole prompts as ids, and how many of the first the graph does not compute."""
        prompt = self.planned.prompt
        compiled, _ = split_prefix(prompt.prefix_ids, prompt.suffix_ids)
        sequences = [ids for ids in self.ids if len(ids) > len(compiled)]
        if (trie := self.planned.trie) is not None:
            begun = itertools.cycle(trie.tokens_to(place) for place in trie.branches)
            sequences = [(*ids, *more) for ids, more in zip(sequences, begun, strict=False)]
        return sequences, len(compiled)


def poor_calibration(calibration: Texts) -> str | None:
    """Why texts show hardly anything of the activations that others will cause, in a line; None
    where there is no such reason.

    Raises:
        SpecError: there is no text.
    """
    texts = calibration.texts
    if not texts:
        raise SpecError("there is no text to calibrate on; give a file with one text a line")
    empty = sum(not all_text(text).strip() for text in texts)
    if len(set(map(spelling, texts))) == 1 and len(texts) > 1:
        reason = f"all {len(texts):,} calibration texts are alike"
    elif empty:
        reason = f"{empty:,} of {len(texts):,} calibration texts are empty"
    elif len(texts) < FEW:
        reason = f"there are few calibration texts, {len(texts):,}"
    else:
        return None
    return f"{reason}; give at least {FEW}, better a hundred, like those to be classified"
