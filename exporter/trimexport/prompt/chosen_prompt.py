"""The source of a build's prompt: the spec's, or a default."""

from __future__ import annotations

from pathlib import Path

from trimexport.errors import SpecError
from trimexport.source.checkpoint import read_config
from trimexport.source.families import family_of, is_classifier
from trimexport.source.prompts_file import prompt_for
from trimexport.spec import BuildSpec

from .questions import check_question_labels
from .verbalizer import check_labels


def chosen_prompt(spec: BuildSpec, directory: Path) -> str:
    """The spec's prompt, or the default one: the text alone for a fine-tuned classifier, and what
    a language model's card says for the labels.

    Unsupported models and missing labels are refused here, before the weights of a hub id are
    downloaded.
    """
    architecture, _ = family_of(read_config(directory), spec.model)
    if is_classifier(architecture):
        if spec.questions:
            raise SpecError(
                f"{spec.model} is a fine-tuned classifier, which answers what it was trained for "
                "and reads no question; drop the questions, or name a language model"
            )
        if spec.chat:
            raise SpecError(
                f"{spec.model} is a fine-tuned classifier, which was not trained to answer in a "
                "chat; drop --chat, and if its texts were turns of one, write them into the prompt"
            )
        if spec.few_shot is not None:
            raise SpecError(
                f"{spec.model} is a fine-tuned classifier, which reads a text alone and learns "
                "nothing from examples before it; drop --few-shot and --shots"
            )
        return "{text}" if spec.prompt is None else spec.prompt
    if spec.questions:
        check_question_labels(spec)
        if spec.prompt is None:
            raise SpecError(
                "there are questions and no prompt; give one in which {question} stands behind the "
                'text: --prompt "{text}\\n\\n{question}\\nAnswer:"'
            )
        return spec.prompt
    if not spec.labels:
        raise SpecError(
            f"a {architecture} has no labels of its own; name them with --labels positive,negative"
        )
    check_labels(spec.labels, spec.score)
    return prompt_for(directory, spec.labels) if spec.prompt is None else spec.prompt
