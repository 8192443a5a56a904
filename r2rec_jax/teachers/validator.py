"""Validates traces before SFT: progressive, masked, and with the right answer (the paper's IoT traces).

Progressive: each hop of the chain has its own statement, in order, with the hop's rating.
Masked: no statement uses a later hop, and none gives the answer away before the last line.
Doubtful traces are rejected, because the teacher can write another one.
"""

import dataclasses
import re

from r2rec_jax.chains.chain import Chain
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.prompts.answer_parser import ORDER, RATING, parse_ranking, rank_of
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import peer_names, shown_titles
from r2rec_jax.prompts.wording import Wording
from r2rec_jax.runtime.plain_text import plain
from r2rec_jax.teachers.mentions import Ratings, Words, as_float32
from r2rec_jax.teachers.question import Question
from r2rec_jax.teachers.recap import recap
from r2rec_jax.teachers.statements import Statement, StatementReader

# Why a trace was rejected -> the sentence that a retry adds to the request.
REASONS = {
    "no_answer": "it did not end with the answer line in the form asked for",
    "wrong_answer": "its last line was not the answer given",
    "answer_early": "a statement before the last line gave the answer away",
    "candidate_early": "a statement before the last line named a candidate",
    "mentions_hint": "a statement showed that the answer had been given",
    "hop_missing": "a hop of the chain, or its rating in digits, was not told",
    "hop_order": "the hops of the chain were not told in order",
    "later_hop": "a statement used something from a later hop, or told two hops at once",
    "wrong_rating": "a statement told a rating that is not in the chain",
    "unknown_person": "a statement named a person who is not in the exercise",
    "reasoning_unasked": "it reasoned, though the answer alone was asked for",
    "too_long": "it was too long",
    "truncated": "it was cut off; be shorter",
    "empty": "it was empty",
    "bad_reply": "it was no chat completion",
    "wrong_model": "another model wrote it",
    "refused": "the server refused the request",
}

_HINT = re.compile(
    r"\b(?:correct|right|true|actual|given|known|provided)\s+(?:answer|rating|ranking|choice)\b"
    r"|\bground truth\b|\bhint(?:s|ed)?\b|\b(?:was|were|been|am) (?:told|given)\b",
    re.IGNORECASE,
)
_PREDICTION = re.compile(
    r"\b(?:will|would|should|might|may|must|could|likely|probably|expect\w*|predict\w*|guess\w*|estimat\w*"
    r"|answer|around|about|close to|closer to|somewhere)\b([^.;]*)",
    re.IGNORECASE,
)
_CANDIDATE = re.compile(
    r"(?:\b(?:candidates?|options?|choices?|numbers?|no\.)\s*#?|#)\s*0*(\d{1,9})", re.IGNORECASE
)
_BULLET = re.compile(r"^(?:\d{1,2}[.):]\s+|[-*•–]\s+|(?:step|statement)\s+\d+\s*[:.)-]\s*)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Trace:
    """Reasoning, one statement per line, and the answer line; None if the text does not end in one."""

    reasoning: str
    answer: str | None


def read_trace(text: str, task: str) -> Trace:
    """Parses a teacher's text into a trace; list marks, emphasis and markup are removed."""
    lines = [plain(line.replace("**", "")) for line in text.splitlines()]
    lines = [stripped for line in lines if (stripped := _BULLET.sub("", line))]
    starts = RATING if task == "rating" else ORDER
    if not lines or not lines[-1].startswith(starts):
        return Trace("\n".join(lines), None)
    return Trace("\n".join(lines[:-1]), lines[-1])


class Validator:
    """Validates traces of one data set in one wording; `config` is the `prompt` section.

    `max_tokens` bounds the completion that SFT trains on, end token included.
    """

    def __init__(self, catalog: Catalog, wording: Wording, chat: Chat, config: PromptConfig, max_tokens: int):
        self.catalog, self.wording, self.chat = catalog, wording, chat
        self.config, self.max_tokens = config, max_tokens
        self._people, self._ratings = Words(wording.peers), Ratings(wording.scale)

    def fault(self, question: Question, trace: Trace) -> str | None:
        """The first of REASONS that applies to the trace; None accepts it."""
        if trace.answer is None:
            return "no_answer" if trace.reasoning else "empty"
        return self._reasoning(question, trace) or self._answer(question, trace) or self._length(trace)

    def _answer(self, question: Question, trace: Trace) -> str | None:
        if question.task == "rating":
            match = re.fullmatch(rf"{RATING}\s*(\d+(?:\.\d+)?)\.?", trace.answer)
            if match is None:
                return "no_answer"
            return None if as_float32(match[1]) == question.chain.r01 else "wrong_answer"
        record = question.record
        titles = shown_titles(record, self.catalog, self.wording)
        ranking = parse_ranking(trace.answer, titles, answer=self.config.answer, places=self.config.places)
        if not ranking.valid:
            return "no_answer"
        truth = record.candidates.tolist().index(record.truth)
        return None if rank_of(ranking, truth) == 1 else "wrong_answer"

    def _length(self, trace: Trace) -> str | None:
        tokens = self.chat.completion(trace.reasoning, trace.answer)
        return "too_long" if len(tokens) > self.max_tokens else None

    def _reasoning(self, question: Question, trace: Trace) -> str | None:
        lines = trace.reasoning.splitlines()
        if not self.config.reasoning:
            return "reasoning_unasked" if lines else None
        if any(line.startswith((ORDER, RATING)) for line in lines):
            return "answer_early"
        statements = StatementReader(question, self.catalog, self.wording, self._people)(lines)
        people = set().union(*(s.people for s in statements))
        names = peer_names(question.chains, self.wording)
        if people - set(names.values()):
            return "unknown_person"
        if any(_HINT.search(s.text) for s in statements):
            return "mentions_hint"
        if question.task == "rating":
            chain = question.chain
            return self._early_rating(statements) or _chain_fault(chain, names, statements, hidden=True)
        # A recap names companions whose chains the trace does not follow, so an exact recap is skipped.
        expected = recap(question.record, self.catalog, self.wording) if self.wording.recap else None
        hops = [s for line, s in zip(lines, statements, strict=True) if line != expected]
        return self._early_candidate(question, statements) or _chains_fault(question, names, hops)

    def _early_rating(self, statements: list[Statement]) -> str | None:
        """A rating after a word of prediction: the trace answers, rightly or not, before its last line."""
        predicted = (phrase for s in statements for phrase in _PREDICTION.findall(s.text))
        return "answer_early" if any(map(self._ratings, predicted)) else None

    def _early_candidate(self, question: Question, statements: list[Statement]) -> str | None:
        candidates = question.record.candidates.tolist()
        named = {item for s in statements for item in s.items if item in candidates}
        numbers = {int(number) for s in statements for number in _CANDIDATE.findall(s.text)}
        named |= {candidates[n - 1] for n in numbers if 1 <= n <= len(candidates)}
        if question.record.truth in named:
            return "answer_early"
        return "candidate_early" if named else None


def _chains_fault(question: Question, names: dict[int, str], statements: list[Statement]) -> str | None:
    """The first fault of the statements about chains.

    Every person mentioned must belong to a chain that the statements follow without a fault. If the prompt
    has chains the statements must follow one; if it has only likes they must mention one.
    """
    people = set().union(*(s.people for s in statements))
    if not people:
        likes = set(question.record.likes)
        missing = question.chains or (likes and not any(s.items & likes for s in statements))
        return "hop_missing" if missing else None
    for person in sorted(people):
        of_person = [c for c in question.chains if person in (names[peer] for peer in c.peers)]
        faults = [_chain_fault(chain, names, statements, hidden=False) for chain in of_person]
        if all(faults):
            return faults[0]
    return None


@dataclasses.dataclass(frozen=True)
class _Hop:
    """One rating of a chain. A hop adds either a new item (`new_item`) or a new person to the chain."""

    person: str | None
    item: int
    rating: float
    new_item: bool


def _hops(chain: Chain, names: dict[int, str]) -> list[_Hop]:
    """The hops before the user's last rating, in order."""
    hops = [
        _Hop(None, chain.i0, chain.r00, True),
        _Hop(names[chain.peer], chain.i0, chain.r10, False),
        _Hop(names[chain.peer], chain.i1, chain.r11, True),
    ]
    for link in chain.more:
        hops.append(_Hop(names[link.peer], hops[-1].item, link.rating, False))
        hops.append(_Hop(names[link.peer], link.item, link.next_rating, True))
    return hops


def _chain_fault(
    chain: Chain, names: dict[int, str], statements: list[Statement], *, hidden: bool
) -> str | None:
    """The first fault of the statements about one chain.

    `hidden` is for a rating question, which asks for r01: the statements must cover every hop before r01 and
    nothing else. Otherwise they must cover at least the first two hops, and other statements may come before
    and after.
    """
    hops = _hops(chain, names)
    places = _find(hops, statements, hidden)
    if isinstance(places, str):
        return places
    start, end = (0, len(statements)) if hidden else (places[0], places[-1] + 1)
    for k in range(start, end):
        s, count = statements[k], sum(place <= k for place in places)
        if any(hop.item in s.items if hop.new_item else hop.person in s.people for hop in hops[count:]):
            return "later_hop"
        stated = [hop.rating for hop in hops[:count]]
        later = [hop.rating for hop in hops[count:]] + ([] if hidden else [chain.r01])
        for rating in s.ratings:
            concludes = k > places[-1]
            if hidden and rating == chain.r01 and (concludes or rating not in (*stated, *later)):
                return "answer_early"
            if rating not in stated:
                return "later_hop" if rating in later else "wrong_rating"
        if k in places and hops[places.index(k)].rating not in s.ratings:
            return "wrong_rating"
    if hidden and statements[places[-1]].ratings.count(chain.r01) > (chain.r01 == hops[-1].rating):
        return "answer_early"
    return None


def _find(hops: list[_Hop], statements: list[Statement], hidden: bool) -> list[int] | str:
    """The index of each hop's statement, in increasing order, or the reason why there is none.

    Unless `hidden`, the last hops may be left out; the result is shorter then.
    """
    rated = [(k, s) for k, s in enumerate(statements) if s.ratings]
    places: list[int | None] = [None]
    for j in range(1, len(hops)):
        hop = hops[j]
        if hop.new_item:
            fits = [k for k, s in rated if hop.item in s.items and (hidden or hop.person in s.people)]
            # An earlier statement may mention the item; the one with its rating is the hop's.
            fits.sort(key=lambda k: hop.rating not in statements[k].ratings)
        else:
            following = hops[j + 1].item
            fits = [k for k, s in rated if hop.person in s.people and following not in s.items]
        places.append(fits[0] if fits else None)
    first, second, person = hops[0], hops[1], hops[1].person
    if places[1] is None:
        later = (s for _, s in rated if person in s.people and hops[2].item in s.items)
        return "later_hop" if any(second.rating in s.ratings for s in later) else "hop_missing"
    openings = [k for k, s in rated if first.item in s.items and person not in s.people]
    before = [k for k in openings if k < places[1]]
    if not before:
        if openings:
            return "hop_order"
        return "later_hop" if first.item in statements[places[1]].items else "hop_missing"
    places[0] = before[0] if hidden else before[-1]
    while not hidden and places[-1] is None:
        places.pop()
    if None in places:
        return "hop_missing"
    if sorted(places) != places:
        return "hop_order"
    return places if len(set(places)) == len(places) else "later_hop"
