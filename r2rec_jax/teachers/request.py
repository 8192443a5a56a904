"""The interface between the annotator and a teacher: requests, replies, and the text of a request.

A teacher is called with a list of requests and a function `receive(request, reply)`. It calls `receive` once
for each request, in any order, as soon as the reply is there. The reply is None if the request was lost.
"""

import dataclasses
from collections.abc import Callable

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.rating_scale import COUNTS, NONE, STARS
from r2rec_jax.prompts.answer_parser import ORDER, RATING
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import shown_titles
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.validator import REASONS


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """A question with the `text` that the teacher reads; `attempt` counts from 1."""

    question: Question
    text: str
    attempt: int


@dataclasses.dataclass(frozen=True)
class Reply:
    """A teacher's reply.

    fault: one of REASONS if the reply has no trace to validate. other_model: the model's name in the reply,
    if it is not the requested model. cost: in the currency of the configured prices.
    """

    text: str
    fault: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    other_model: str = ""


Receive = Callable[[Request, Reply | None], None]

_TEXT = """\
You write model solutions from which a student learns to reason. The exercise, as the student sees it:

<exercise>
{prompt}
</exercise>

You alone are told the right answer: {answer}.

Write the solution of somebody who does not know the answer and finds it step by step:
- One short statement a line, without headings, numbers or other marks before it.
- {progressive}
- {conclusion}
- Never say or suggest that you know the answer already.
Then write the answer as your last line, exactly in this form:
{form}"""

_CHAIN = (
    "Progressive: {chain} hop by hop in its order, with a statement of its own for each {step}. Such a "
    "statement names item and person exactly as the exercise does{and_how}.\n"
    "- Masked: a statement uses nothing that comes after its own hop in the chain."
)
_AND_HOW = {
    STARS: " and gives the rating in digits",
    COUNTS: " and says how often in the same words",
    NONE: "",
}
_NO_CHAIN = "Progressive: go through what is known one by one; a statement builds only on those before it."
_CONCLUSION = {
    "rating": "After the last known rating, say what to expect of the missing one, without any digit.",
    "ranking": "Then say what this tells of the taste. Name no candidate, by title or by number.",
}


def request_text(
    question: Question,
    catalog: Catalog,
    wording: Wording,
    config: PromptConfig,
    refused: str | None = None,
) -> str:
    """The text of a request to a language model; `config` is the `prompt` section.

    The text gives the answer once, in the same words at every attempt. A retry adds only the rule that the
    last reply broke (`refused`, one of REASONS).
    """
    record = question.record
    if question.task == "rating":
        answer = wording.rating(question.chain.r01)
        form, chain = f"{RATING} {answer}", "follow the chain"
    else:
        place = record.candidates.tolist().index(record.truth)
        title = shown_titles(record, catalog, wording)[place]
        answer = f"the candidate to put first is number {place + 1}, {title}"
        first = str(place + 1) if config.answer == "numbers" else title
        form, chain = f"{ORDER} {first}", "choose the chain that says most, and follow it"
        if config.places > 1:
            form += f" > and so on, the {config.answer} of {config.places} different candidates in all"
    kind = wording.scale.kind
    step = "rating" if kind == STARS else "step"
    steps = _CHAIN.format(chain=chain, step=step, and_how=_AND_HOW[kind])
    text = _TEXT.format(
        prompt=question.prompt,
        answer=answer,
        progressive=steps if question.chains else _NO_CHAIN,
        conclusion=_CONCLUSION[question.task],
        form=form,
    )
    return text + (f"\n\nAn earlier solution was refused: {REASONS[refused]}." if refused else "")
