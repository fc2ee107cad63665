"""`trimexport`: build bundles, verify and measure them, inspect what would be cut.

Results go to standard output, everything else to standard error. Exit status: 0 done, 1 an
expected failure, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import click

from trimexport import __version__

from .bench import bench
from .build import build
from .bundle import bundle
from .calibrate import calibrate
from .console import Commands
from .evaluate import evaluate
from .fit import fit
from .inspect import inspect
from .pack import pack
from .suggest import suggest
from .verify import verify


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trimexport")
def main() -> None:
    """Compile text classifiers out of decoder language models.

    \b
    Example:
      trimexport build --labels positive,negative -o build/sentiment
    """


for command in (build, pack, bundle, verify, inspect, bench, evaluate, calibrate, fit, suggest):
    main.add_command(command)
