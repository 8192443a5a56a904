"""Tokenizer files of others: cut as transformers 5 cuts with them, or refused by name."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from r2rec_jax.prompts.chat import MARKERS, Chat
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.plain_text import plain

TEXT = "Liked: Amélie (2001)  [Drama].\n\nRank <s> 天気の子 12,345 of 7 🦙"
LONG = "Order: Alien > Heat > Up. " * 200


@pytest.fixture
def folder(tiny_chat, tmp_path):
    """A whole model folder but for its weights."""
    tiny_chat.to_transformers().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 1024}))
    return tmp_path


def edit(folder, name="tokenizer.json", **fields):
    path = folder / name
    raw = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(raw | fields), encoding="utf-8")


def added(folder, **flags):
    """The file's added tokens, those of the closing think marker changed."""
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    return [token | (flags if token["content"] == "</think>" else {}) for token in tokens]


def theirs(folder, text) -> list[int]:
    return AutoTokenizer.from_pretrained(folder).encode(text, add_special_tokens=False)


STRATEGY = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
PADDING = {"strategy": {"Fixed": 64}, "direction": "Left", "pad_to_multiple_of": None}
PADDING |= {"pad_id": 1, "pad_type_id": 0, "pad_token": MARKERS["end"]}
BEGINS = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": MARKERS["begin"], "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {MARKERS["begin"]: {"id": MARKERS["begin"], "ids": [0], "tokens": [MARKERS["begin"]]}},
}


@pytest.mark.parametrize(
    "fields",
    [
        {"truncation": STRATEGY},
        {"padding": PADDING},
        {"truncation": STRATEGY, "padding": PADDING | {"strategy": "BatchLongest", "pad_to_multiple_of": 8}},
        {"post_processor": BEGINS},
        {"normalizer": {"type": "NFC"}},
    ],
    ids=["truncation", "padding", "both", "begin token", "NFC"],
)
def test_what_a_file_adds_or_cuts_off_changes_no_token(folder, tiny_chat, fields):
    edit(folder, **fields)
    chat = Chat(folder)
    for text in ("", "a", LONG, TEXT):
        assert chat.encode(text) == tiny_chat.encode(text) == theirs(folder, text)
    assert chat.prompt(LONG) == tiny_chat.prompt(LONG)


LOWER = {"type": "Lowercase"}
BARE = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}
PREFIX = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"normalizer": LOWER}, "loses text"),
        ({"normalizer": BARE}, "loses text"),
        ({"pre_tokenizer": PREFIX}, "tokenizer.json"),
        ({"decoder": None}, "loses text"),
    ],
)
def test_a_file_that_changes_text_is_refused(folder, fields, named):
    edit(folder, **fields)
    with pytest.raises(UserError, match=named):
        Chat(folder)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_a_marker_that_takes_from_the_text_beside_it_is_refused(folder, tiny_chat, flag):
    """In transformers the newline before it is lost, or the marker is not found."""
    edit(folder, added_tokens=added(folder, **{flag: True}))
    text = "a \n</think>\n b" if flag != "single_word" else "a</think>b"
    pieces = text.split("</think>")
    assert theirs(folder, text) != [
        *tiny_chat.encode(pieces[0]),
        tiny_chat.end_think,
        *tiny_chat.encode(pieces[1]),
    ]
    with pytest.raises(UserError, match=r"'</think>' changes adjacent text: its lstrip, rstrip"):
        Chat(folder)


def test_cutting_at_random_is_refused(folder):
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    edit(folder, model=model | {"dropout": 0.1})
    with pytest.raises(UserError, match=r"model\.dropout=0\.1 tokenizes text at random"):
        Chat(folder)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tokenizer_class": "Qwen2Tokenizer"}, "tokenizer_class='Qwen2Tokenizer' is not supported"),
        ({"split_special_tokens": True}, "split_special_tokens=true"),
        ({"added_tokens_decoder": {"1024": {"content": "Alien"}}}, "'Alien' as 1024"),
        ({"added_tokens_decoder": {"9": {"content": "</think>"}}}, "'</think>' as 9"),
        ({"added_tokens_decoder": {"5": {"content": "</think>", "rstrip": True}}}, "'</think>' as 5"),
        (
            {"chat_template": "{{ '<|start_header_id|>' + message['role'] }}"},
            "chat template has no '<｜User｜>'",
        ),
        ([], "is not a JSON object"),
    ],
)
def test_what_transformers_would_do_otherwise_is_named(folder, fields, named):
    if fields:
        edit(folder, "tokenizer_config.json", **fields)
    else:
        (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"tokenizer_config\.json") as caught:
        Chat(folder)
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["LlamaTokenizerFast", "LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_the_classes_that_take_the_file_as_it_is(folder, tiny_chat, kind):
    edit(folder, "tokenizer_config.json", tokenizer_class=kind, add_bos_token=True, model_max_length=16)
    assert Chat(folder).encode(LONG) == tiny_chat.encode(LONG) == theirs(folder, LONG)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(("end", "fine"), [(1, True), ([1], True), (None, True), ([1, 7], False), (2, False)])
def test_another_end_of_a_completion_is_refused(folder, name, end, fine):
    edit(folder, name, eos_token_id=end)
    if fine:
        assert Chat(folder).end == 1
        return
    with pytest.raises(UserError, match=f"{name}: eos_token_id has .* set it to 1"):
        Chat(folder)


def test_more_tokens_than_the_model_has_are_refused(folder):
    edit(folder, "config.json", vocab_size=1023)
    with pytest.raises(UserError, match=r"as 1023, but .*config\.json has vocab_size=1023: fetch both"):
        Chat(folder)


@given(st.text(max_size=40).map(plain))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_real_file_cuts_as_transformers_does(real_chat, real_reference, text):
    assert real_chat.encode(text) == real_reference.encode(text, add_special_tokens=False)
    assert real_chat.text(real_chat.encode(text)) == real_reference.decode(real_chat.encode(text))


@pytest.fixture(scope="module")
def real_reference(tokenizer_folder, tmp_path_factory):
    """By AutoTokenizer, from the folder of a Llama."""
    folder = tmp_path_factory.mktemp("real")
    for file in tokenizer_folder.iterdir():
        shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    return AutoTokenizer.from_pretrained(folder)


def test_other_added_tokens_in_a_title_are_text(tmp_path):
    """A special one never becomes that token; an ordinary one does, as in transformers."""
    alphabet = {letter: k for k, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in (*MARKERS.values(), "<s>")])
    tokenizer.add_tokens(["Alien"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    chat = Chat(tmp_path)
    assert chat.encode("<s>") == [alphabet["<"], alphabet["s"], alphabet[">"]]
    assert chat.encode("Alien") == [tokenizer.token_to_id("Alien")]
    assert chat.text(chat.encode("An Alien <s>")) == "An Alien <s>"
