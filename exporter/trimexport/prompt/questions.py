"""Several questions about one text: a prompt's field `{question}`, and the prompt of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimexport.errors import SpecError
from trimexport.spec import BuildSpec
from trimexport.spec.question import QuestionSpec
from trimexport_runtime.bundle import Field
from trimexport_runtime.questions import FIELD, flat_name

from .logit_score import fields_of
from .prompt_ids import PromptIds
from .question_tree import Ending, QuestionTree, make_question_tree, shared_beginning
from .template import PromptTemplate, literal_template
from .tokenizer import SourceTokenizer
from .verbalizer import Verbalizer, check_labels, make_verbalizer


@dataclass(frozen=True)
class AskedQuestion:
    """A question with its own prompt, in which its text is written, its labels, and the words of
    those that do not stand for themselves."""

    name: str
    text: str
    prompt: PromptIds
    labels: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]


def check_question_field(template: PromptTemplate, spec: BuildSpec) -> None:
    """Raise SpecError unless the template has `{question}` behind every other field, if there are
    questions."""
    if not spec.questions:
        return
    names = [field.name for field in template.fields]
    if FIELD not in names:
        raise SpecError(
            f"there are questions, and the prompt {template.source!r} has no place for them; write "
            f"{{{FIELD}}} behind the text, such as {{text}}\\n\\n{{{FIELD}}}\\nAnswer:"
        )
    if template.fields[names.index(FIELD)].default is not None:
        raise SpecError(
            f"the prompt {template.source!r} gives {{{FIELD}}} a default, and every question has "
            f"its text; write {{{FIELD}}} alone"
        )
    if template.required == (FIELD,):
        raise SpecError(
            f"the prompt {template.source!r} has no field for the text that the questions are "
            f"about; write one before {{{FIELD}}}, such as {{text}}"
        )
    if names[-1] != FIELD:
        raise SpecError(
            f"{{{FIELD}}} stands before {{{names[-1]}}} in the prompt, so each question would "
            f"read the text in a pass of its own; write {{{FIELD}}} behind every text"
        )
    if spec.few_shot is not None:
        raise SpecError(
            "--few-shot writes examples of one question, and there are several; drop it and write "
            "the examples into the prompt"
        )


def check_question_labels(spec: BuildSpec) -> None:
    """Raise SpecError for a question whose labels are none to choose between, and for words of what
    is no question's label."""
    for question in spec.questions:
        try:
            check_labels(labels_of(question, spec))
        except SpecError as error:
            raise SpecError(f'question "{question.name}": {error}') from None
    known = {label for question in spec.questions for label in labels_of(question, spec)}
    if strange := [label for label in spec.verbalizers if label not in known]:
        raise SpecError(
            f'--verbalize names "{strange[0]}", which is no question\'s label; the labels are '
            f"{', '.join(sorted(known))}"
        )


def labels_of(question: QuestionSpec, spec: BuildSpec) -> tuple[str, ...]:
    """A question's labels: its own, or the build's."""
    return spec.labels if question.labels is None else question.labels


def words_of(question: QuestionSpec, spec: BuildSpec) -> dict[str, tuple[str, ...]]:
    """The words of a question's labels: the build's, and its own in their place."""
    labels = labels_of(question, spec)
    shared = {label: words for label, words in spec.verbalizers.items() if label in labels}
    return shared | dict(question.verbalizers)


def text_places(spec: BuildSpec) -> tuple[Field, ...]:
    """The fields of a spec's prompt that texts stand in.

    Raises: as `logit_score.fields_of`.
    """
    return tuple(it for it in fields_of(spec) if not spec.questions or it.name != FIELD)


def ask(template: PromptTemplate, text: str) -> PromptTemplate:
    """The template with a question's text in the place of its last field, which is `{question}`."""
    *pieces, before = template.pieces
    asked = literal_template((*pieces, before + text + template.suffix), template.fields[:-1])
    return replace(asked, rendered=template.rendered, lead=template.lead)


def unasked(asked: PromptTemplate, template: PromptTemplate, text: str) -> PromptTemplate:
    """`template` with what stands before a question in `asked`, which is `ask` of it with other
    white space behind the last text."""
    before = asked.suffix.removesuffix(text + template.suffix)
    parts = (*asked.pieces, before, template.suffix)
    return literal_template(parts, template.fields)


def shared_prompt(template: PromptTemplate, prompts: Sequence[PromptIds]) -> PromptIds:
    """The prompt of all questions: its suffix is what the graph writes behind every text before the
    questions part. The template's source keeps `{question}`; its fields are those of texts."""
    first = prompts[0]
    return replace(
        first,
        template=replace(first.template, source=template.source, suffix=""),
        suffix_ids=shared_beginning([prompt.suffix_ids for prompt in prompts]),
    )


def tree_of(asked: Sequence[AskedQuestion], verbalizers: Sequence[Verbalizer]) -> QuestionTree:
    """The tree of questions and their labels."""
    return make_question_tree(
        [
            Ending(question.prompt.suffix_ids, verbalizer.scored)
            for question, verbalizer in zip(asked, verbalizers, strict=True)
        ]
    )


def asked_questions(spec: BuildSpec, prompts: Sequence[PromptIds]) -> tuple[AskedQuestion, ...]:
    """The questions of a spec with their prompts; none where it has none."""
    if not spec.questions:
        return ()
    return tuple(
        AskedQuestion(
            question.name,
            question.text,
            prompt,
            labels_of(question, spec),
            words_of(question, spec),
        )
        for question, prompt in zip(spec.questions, prompts, strict=True)
    )


def question_words(
    asked: Sequence[AskedQuestion], tokenizer: SourceTokenizer, end_ids: Sequence[int]
) -> tuple[Verbalizer, ...]:
    """The tokens of every question's labels, behind its own prompt.

    Raises:
        SpecError: see `verbalizer.make_verbalizer`; its message names the question.
    """
    found = []
    for question in asked:
        template = question.prompt.template
        try:
            found.append(
                make_verbalizer(question.labels, question.words, template, tokenizer, end_ids)
            )
        except SpecError as error:
            raise SpecError(f'question "{question.name}": {error}') from None
    return tuple(found)


def flat_labels(asked: Sequence[AskedQuestion]) -> tuple[str, ...]:
    """The labels of all questions, one question after the other."""
    return tuple(flat_name(it.name, label) for it in asked for label in it.labels)


def question_notes(
    asked: Sequence[AskedQuestion], verbalizers: Sequence[Verbalizer]
) -> tuple[str, ...]:
    """Lines for the user on the cost of the questions, and on the words of their labels."""
    tree = tree_of(asked, verbalizers)
    behind = len(tree.trunk) + len(tree.trie.token_ids)
    return (
        f"{len(asked)} questions in one pass: {behind} tokens behind each text",
        *(
            f'question "{question.name}": {note}'
            for question, verbalizer in zip(asked, verbalizers, strict=True)
            for note in verbalizer.notes
        ),
    )
