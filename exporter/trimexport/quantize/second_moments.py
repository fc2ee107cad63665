"""Second moments of what matrices read on calibration texts, kept on disk.

Rounding makes up for its errors by them (see `blocks`). Of an input of K channels they would be
K x K numbers: a gigabyte for the widest of Gemma-2B. Kept are those that up to GROUP neighbours
have with each other. Matrices that read the same activation share them. Those of one layer are in
memory at a time.
"""

from __future__ import annotations

from pathlib import Path

import torch

from trimexport.errors import ExportError

GROUP = 1024
DAMPING = 0.01  # of the mean second moment, which is added to each before they are inverted

Groups = list[torch.Tensor]
"""A float32 [width, width] for each group of channels, in order."""


class SecondMoments:
    """Sums over positions of x^T x for each input x that was shown, in files of a directory.
    Parameters have the names that `LayerwiseModel.show_inputs` gives them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shared: dict[str, str] = {}  # parameter -> the first one that reads the same
        self._sums: dict[str, Groups] = {}  # of one layer, by these first ones
        self._last: tuple[str, torch.Tensor] = ("", torch.empty(0))
        self._cached: tuple[Path, Groups] = (directory, [])

    def add(self, parameter: str, inputs: torch.Tensor) -> None:
        """Add some positions of what a parameter reads, float32 [positions, inputs]. Layers come
        one after the other, and in a layer those parameters that read the same."""
        if self._sums and _layer(parameter) != _layer(next(iter(self._sums))):
            self.flush()
        first, before = self._last
        if not torch.equal(before, inputs):
            first = parameter
            self._last = (first, inputs)
            here = [part.T @ part for part in inputs.split(GROUP, 1)]
            self._sums[first] = _added(self._sums.get(first), here)
        self._shared[parameter] = first

    def flush(self) -> None:
        """Write what is in memory, with what an earlier pass wrote."""
        for first, sums in self._sums.items():
            file = self._file(first)
            torch.save(_added(torch.load(file) if file.exists() else None, sums), file)
        self._sums = {}

    def has(self, parameter: str) -> bool:
        """Whether the parameter was shown."""
        return parameter in self._shared

    def factors(self, parameter: str) -> Groups:
        """The upper Cholesky factor of the inverse of each group's moments, damped.

        Raises:
            ExportError: the parameter was not shown.
        """
        moments = self._file_of(parameter)
        if self._cached[0] != moments:
            factors = moments.with_suffix(".factors")  # they are asked for twice
            if not factors.exists():
                torch.save([_cholesky(part) for part in torch.load(moments)], factors)
            self._cached = (moments, torch.load(factors))
        return self._cached[1]

    def missed(self, parameter: str, errors: torch.Tensor) -> float:
        """The sum over all positions and outputs of the squares that a product misses when its
        weights have errors float32 [outputs, inputs], those of one group by themselves."""
        groups: Groups = torch.load(self._file_of(parameter))
        parts = zip(errors.split(GROUP, 1), groups, strict=True)
        return sum(float(((part @ moments) * part).sum()) for part, moments in parts)

    def _file_of(self, parameter: str) -> Path:
        if parameter not in self._shared:
            raise ExportError(
                f"calibration saw no input of {parameter}, so int4 cannot be built; build this "
                "model with --precision int8"
            )
        return self._file(self._shared[parameter])

    def _file(self, first: str) -> Path:
        return self._directory / f"{first}.moments"


def _layer(parameter: str) -> list[str]:
    """What the names of a layer's parameters begin with: `body.layers.3`."""
    return parameter.split(".")[:3]


def _added(before: Groups | None, more: Groups) -> Groups:
    return more if before is None else [a + b for a, b in zip(before, more, strict=True)]


def _cholesky(moments: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor U of the inverse of damped moments H: where H = R R^T with R upper
    triangular, which is the lower factor of H with its inputs in reverse, U is the inverse of R."""
    wide = moments.double().flip(0, 1)
    diagonal = wide.diagonal()
    mean = float(diagonal.mean())
    diagonal += DAMPING * mean if mean > 0 else 1.0  # of inputs that are always zero
    lower = torch.linalg.cholesky(wide)
    one = torch.eye(len(wide), dtype=wide.dtype)
    inverse: torch.Tensor = torch.linalg.solve_triangular(lower, one, upper=False)
    return inverse.flip(0, 1).float()
