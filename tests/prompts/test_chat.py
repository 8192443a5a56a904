import json

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from r2rec_jax.prompts.chat import MARKERS, Chat, plain
from r2rec_jax.runtime.errors import UserError

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Pieces that make markers when they meet, and what might hide a seam.
SHARDS = [
    *MARKERS.values(),
    "<|eot_id|>",
    "<|",
    "|>",
    "<｜",
    "｜>",
    "<",
    ">",
    "/",
    "think",
    " think",
]
SHARDS += ["</", "th", "ink>", "User", "▁", "\n", "\x00", "\u200b", "\u202e", " ", "a"]
hostile = st.lists(st.sampled_from(SHARDS), max_size=12).map("".join)


@pytest.fixture(scope="module")
def reference(tokenizer_folder):
    """The stock template on the stock machinery."""
    config = json.loads((tokenizer_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    template = (tokenizer_folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == config["chat_template"]
    return PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_folder / "tokenizer.json"),
        bos_token=config["bos_token"],
        eos_token=config["eos_token"],
        chat_template=template,
    )


def tokens(reference, messages, **options) -> list[int]:
    return reference.apply_chat_template(messages, tokenize=True, return_dict=False, **options)


TEXTS = [
    "Hello",
    "  spaces around\n\nand lines\n",
    "Amélie 天気の子 🦙 1,000 > 999",
    "Liked: Alien (1979) [Horror].\nRank the best 3.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_the_reference_templates_token_for_token(reference, real_chat, text):
    expected = tokens(reference, [{"role": "user", "content": text}], add_generation_prompt=True)
    assert real_chat.prompt(text) == expected


@pytest.mark.parametrize("answer", ["Order: 3 > 1 > 2", "Fine.", "Amélie (2001)"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_turn_without_its_reasoning_is_the_reference_templates(reference, real_chat, text, answer):
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    prompt, completion = real_chat.prompt(text), real_chat.completion("Some step.", answer)
    opened = [real_chat.think, *real_chat.encode("\n")]
    assert prompt[-len(opened) :] == opened
    after = completion[completion.index(real_chat.end_think) + 1 :]
    gap = real_chat.encode("\n\n")
    assert after[: len(gap)] == gap
    assert prompt[: -len(opened)] + after[len(gap) :] == tokens(reference, messages)


@given(reasoning=st.text(max_size=40).map(plain), answer=st.text(max_size=40).map(plain))
@few
def test_pieces_encode_as_the_whole_text_does(reference, real_chat, reasoning, answer):
    opening = [{"role": "user", "content": "Which?"}]
    text = reference.apply_chat_template(opening, tokenize=False, add_generation_prompt=True)
    text += f"{reasoning}\n</think>\n\n{answer}{MARKERS['end']}"
    expected = reference(text, add_special_tokens=False)["input_ids"]
    ours = real_chat.prompt("Which?") + real_chat.completion(reasoning, answer)
    assert real_chat.decode(ours) == real_chat.decode(expected)
    # A newline may join the newlines and spaces beside it; what holds ink must be cut alike.
    if reasoning and answer:
        assert ours == expected


def test_the_real_vocabulary_reproduces_llama_cpps_vectors(tokenizer_folder, real_chat):
    text = (tokenizer_folder / "llamacpp-llama-bpe.inp").read_bytes().decode("utf-8")
    inputs = text.split("\n__ggml_vocab_test__\n")[:-1]  # each is followed by the separator
    lines = (tokenizer_folder / "llamacpp-llama-bpe.out").read_text().splitlines()
    assert len(lines) > 30
    for given_text, line in zip(inputs, lines, strict=True):
        assert real_chat.encode(given_text) == [int(token) for token in line.split()], given_text


def test_the_real_markers_have_the_familys_ids(real_chat):
    found = [getattr(real_chat, name) for name in MARKERS]
    assert found == [128000, 128001, 128011, 128012, 128013, 128014]


@given(text=hostile | st.text(max_size=60))
@few
def test_plain_text_never_encodes_to_a_marker(chat, text):
    clean = plain(text)
    ids = chat.tokenizer.encode(clean, add_special_tokens=False).ids
    assert not set(ids) & set(chat.tokenizer.get_added_tokens_decoder())
    assert chat.encode(clean) == ids
    assert "\n" not in clean and clean == clean.strip()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Alien", "Alien"),
        ("  Se7en\t(1995)\r\n", "Se7en (1995)"),
        ("Up</think>Order: 1", "UpOrder: 1"),
        ("<th<think>ink>", ""),
        ("</ THINK >x", "x"),
        ("<｜User｜>you<|eot_id|>", "you"),
        ("a\u202eb\u200bc\x00d", "a b c d"),
        ("1 < 2 > 1 | 3", "1 < 2 > 1 | 3"),
        ("Amélie 天気の子", "Amélie 天気の子"),
    ],
)
def test_plain_keeps_what_is_text(text, clean):
    assert plain(text) == clean


@pytest.mark.parametrize("marker", MARKERS.values())
def test_markup_that_was_not_cleaned_is_refused(chat, marker):
    with pytest.raises(ValueError, match="plain"):
        chat.encode(f"a {marker} b")
    with pytest.raises(ValueError, match="plain"):
        chat.completion("fine", f"Order: {marker}")


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@given(reasoning=LINES.map(plain), answer=LINES.map(plain))
@few
def test_a_completion_splits_into_what_it_was_made_of(chat, reasoning, answer):
    made = chat.completion(reasoning, answer)
    assert chat.split(made) == (reasoning, answer)
    assert chat.split([*made, *chat.encode("what follows the end")]) == (reasoning, answer)


def test_a_reasoning_that_never_closed_has_no_answer(chat):
    ids = chat.encode("I wonder\nOrder: 1 > 2")
    assert chat.split(ids) == ("I wonder\nOrder: 1 > 2", None)
    assert chat.split([*ids, chat.end, chat.end_think]) == ("I wonder\nOrder: 1 > 2", None)
    assert chat.split([]) == ("", None)
    assert chat.split([chat.end_think]) == ("", "")


def test_a_second_closing_mark_stays_in_the_answer(chat):
    ids = [*chat.encode("a"), chat.end_think, *chat.encode("b"), chat.end_think]
    assert chat.split(ids) == ("a", "b</think>")


@pytest.mark.parametrize("content", [None, "{}", "no json"])
def test_a_missing_or_damaged_tokenizer_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        Chat(tmp_path)


def test_a_tokenizer_of_another_family_is_refused(tmp_path):
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="begin▁of▁sentence"):
        Chat(tmp_path)
