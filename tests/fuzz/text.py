"""What models, servers and catalogues say: answers, titles, traces, replies."""

import json
import unicodedata
from pathlib import Path
from random import Random

import numpy as np

from configs import data as data_config
from r2rec_jax.data.cleaning import LONGEST_TITLE, Rules
from r2rec_jax.data.generate import generate
from r2rec_jax.data.interactions import Catalog
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.answer_parser import ORDER
from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.wording import WORDINGS, wording
from r2rec_jax.rollout.parsed_completion import parse_reply
from r2rec_jax.runtime.errors import shown
from r2rec_jax.runtime.plain_text import plain
from r2rec_jax.teachers.question import questions
from r2rec_jax.teachers.request import Request
from r2rec_jax.teachers.server_reply import LONGEST, read_completion
from r2rec_jax.teachers.template import TemplateTeacher
from r2rec_jax.teachers.validator import REASONS, Validator, read_trace
from tests.fuzz.case import Target
from tests.fuzz.mutate import mutate, mutate_json, text_of

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "tiny-llama"
TITLES = [
    "Alien (1979)",
    "Amélie (2001)",
    "M",
    "1984",
    '"Q" [x]',
    "E.T.",
    "A > B",
    "七人の侍",
    "‘Ran’ (1985)",
    "7",
]


class Answer(Target):
    """A server's answer to a ranking prompt: the first byte says in what form it was asked for."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        _, *lines = (ROOT / "tests/prompts/awkward_answers.jsonl").read_text().split("\n")[:-1]
        self._said = [json.loads(line)["said"] for line in lines]
        self._said += [f"<think>One.\nTwo.</think>\n{ORDER} {' > '.join(TITLES)}"]
        candidates = np.arange(len(TITLES), dtype=np.int32)
        record = RankingRecord(0, {}, [], [], candidates, candidates, 3)
        self._prompt = Prompt(record, "", np.array([], np.int32), TITLES)
        self._config = data_config.get_config("generated").prompt

    def make(self, rng: Random) -> bytes:
        return rng.randbytes(1) + mutate(rng, (rng.choice(self._said) or "").encode())

    def read(self, data: bytes) -> None:
        form, places = divmod(data[0] if data else 0, len(TITLES))
        answer, places = ("titles", "numbers")[form % 2], places + 1
        self._config.update({"answer": answer, "places": places})
        judged = parse_reply(self._prompt, text_of(data[1:])[:LONGEST], False, self._config)
        found = judged.ranking.places
        named = [place for place in found if place is not None]
        assert len(found) <= places and len(set(named)) == len(named)
        assert all(0 <= place < len(TITLES) for place in named)
        assert not judged.ranking.valid or len(named) == places
        assert judged.lenient_rank == (found.index(3) + 1 if 3 in found else 0)
        assert judged.truth_rank == (judged.lenient_rank if judged.ranking.valid else 0)
        assert 0 <= judged.statements <= judged.reasoning.count("\n") + 1


class Plain(Target):
    """A title, on its way from a catalogue into a prompt, a log and a page."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._chat = Chat(MODEL)
        self._special = set(self._chat.tokenizer.get_added_tokens_decoder())
        self._seeds = [
            *TITLES,
            *MARKERS.values(),
            "<｜User｜><|x|>< / think >",
            "Q&amp;A &lt;think&gt; (1999)",
        ]

    def make(self, rng: Random) -> bytes:
        return mutate(rng, "".join(rng.choices(self._seeds, k=rng.randrange(1, 4))).encode())

    def read(self, data: bytes) -> None:
        text = text_of(data)
        said = plain(text)
        assert plain(said) == said
        assert not {unicodedata.category(c) for c in said} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            normal = unicodedata.normalize(form, said).casefold()
            assert not any(marker.casefold() in normal for marker in MARKERS.values())
        kept = Rules().title(text, "item 7")
        assert 0 < len(kept) <= LONGEST_TITLE
        catalog = Catalog([kept], np.array([1999]), [(kept,)], [{}])
        for name in WORDINGS:
            title = wording(name).title(catalog, 0)
            assert ">" not in title and "\n" not in title
        ids = self._chat.prompt(f"{title}{wording('movies').genre_note(catalog, 0)}")
        chat = self._chat
        markup = [token for token in ids if token in self._special]
        assert markup == [chat.begin, chat.user, chat.assistant, chat.think]
        assert shown(text).isprintable()


class Trace(Target):
    """A teacher's trace of one of a few questions; the first byte says which."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        log, catalog = generate(seed=5, users=60, items=64, ratings_per_user=14)
        dataset = Dataset("small", log, catalog, split(log, seed=2, sizes={"sft": 10, "evaluation": 5}))
        config = data_config.get_config("generated")
        config.annotate.tasks = ("rating", "ranking")
        config.prompt.buckets = (4096,)
        chat, words = Chat(MODEL), wording(config.prompt.wording)
        self._questions = questions(dataset, chat, config.prompt, config.annotate.tasks, seed=config.seed)
        self._validator = Validator(catalog, words, chat, config.prompt, 1000)
        self._chat, self._seeds = chat, []
        asks = [Request(question, question.prompt, 1) for question in self._questions]
        TemplateTeacher(catalog, words, config.prompt)(asks, lambda _, reply: self._seeds.append(reply.text))

    def make(self, rng: Random) -> bytes:
        k = rng.randrange(len(self._seeds))
        return bytes([k]) + mutate(rng, self._seeds[k].encode())

    def read(self, data: bytes) -> None:
        question = self._questions[(data[0] if data else 0) % len(self._questions)]
        text = text_of(data[1:])[:LONGEST].encode(errors="replace").decode()
        trace = read_trace(text, question.task)
        fault = self._validator.fault(question, trace)
        assert fault in (None, *REASONS)
        if fault is None:
            assert trace.reasoning and trace.answer and self._chat.completion(trace.reasoning, trace.answer)


class ServerReply(Target):
    """The body of a server's reply to a chat completion."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._config = data_config.get_config("generated").annotate.openai
        self._config.update({"model": "m", "prompt_price": 1.0, "completion_price": 2.0})
        message = {"role": "assistant", "content": "Fine."}
        self._good = {
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }

    def make(self, rng: Random) -> bytes:
        if rng.randrange(2):
            return mutate_json(rng, self._good)
        return mutate(rng, json.dumps(self._good).encode())

    def read(self, data: bytes) -> None:
        reply = read_completion(data, self._config)
        assert reply.fault in (None, *REASONS)
        assert len(reply.text.encode().decode()) <= LONGEST
        assert reply.fault or reply.text.strip()
        for count in (reply.prompt_tokens, reply.completion_tokens):
            assert type(count) is int and 0 <= count < 1 << 32
        assert 0 <= reply.cost < 1e6
