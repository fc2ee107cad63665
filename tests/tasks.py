"""What gemma-mini was trained for, as the tests build it."""

from __future__ import annotations

from models import GEMMA_MINI
from trimexport import BuildSpec

SENTIMENT = BuildSpec(
    precision=("fp32",),
    model=str(GEMMA_MINI),
    labels=("positive", "negative"),
    prompt="Review: {text}\nSentiment:",
)
TOPICS = BuildSpec(
    precision=("fp32",),
    model=str(GEMMA_MINI),
    labels=("World", "Sports", "Business", "Sci/Tech"),
    prompt="News: {text}\nTopic:",
)
