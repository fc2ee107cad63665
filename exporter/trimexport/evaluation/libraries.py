"""The libraries of the extra `eval`, which the modules here import where they use them."""

from __future__ import annotations

from trimexport.errors import EvaluationError


def require_libraries(purpose: str) -> None:
    """Refuse work that cannot be done without scikit-learn and matplotlib.

    Args:
        purpose: what they are needed for, as the message's subject: `evaluating`.

    Raises:
        EvaluationError: one of them cannot be imported.
    """
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise EvaluationError(
            f"{purpose} needs scikit-learn and matplotlib ({error}); install `trimexport[eval]`"
        ) from None
