"""A chat completion as servers send it: vLLM, llama.cpp, TGI, Ollama, LM Studio and OpenAI's own."""

import re

from r2rec_jax.runtime.untrusted import parse_json
from r2rec_jax.teachers.config import ServerConfig
from r2rec_jax.teachers.request import Reply

LONGEST = 100_000  # characters kept of a reply
# How each server says why it stopped (finish_reason) -> the reply's fault. Some say nothing of an end.
ENDS = dict.fromkeys(("", "stop", "eos", "eos_token", "stop_sequence", "end_turn"))
ENDS |= dict.fromkeys(("length", "max_tokens", "model_length"), "truncated")
ENDS |= {"content_filter": "refused"}
# What servers add to the name that was asked for: "@main", ":latest", "-2024-07-18", "-0613".
_VERSION = re.compile(r"(@[\w.-]+|:latest|-(\d{4}|\d{8}|\d{4}-\d{2}-\d{2})(-preview)?)?")


def read_completion(body: bytes, config: ServerConfig) -> Reply:
    """A chat completion as a Reply, `config` being the server's section; whatever else the server sent is
    a Reply with a fault."""
    try:
        said = parse_json(body)
    except ValueError:
        return Reply("", "bad_reply")
    if not isinstance(said, dict):
        return Reply("", "bad_reply")
    usage, name = said.get("usage"), said.get("model")
    prompt, completion = (_count(usage, f"{kind}_tokens") for kind in ("prompt", "completion"))
    cost = (prompt * config.prompt_price + completion * config.completion_price) / 1e6
    named = isinstance(name, str) and not is_model(name, config.reported_model or config.model)
    text, fault = _content(said)
    return Reply(text, fault, prompt, completion, cost, name[:1000] if named else "")


def is_model(name: str, asked: str) -> bool:
    """Whether a server that calls its model `name` answers as the one `asked` for.

    So it does with a version after the name, in capitals or not, as the file of the model, and with or
    without the organisation, of which there may not be two. A reply that names no model is the model's.
    """
    if not name.strip():
        return True
    ours, theirs = _parts(asked), _parts(name)
    is_file = name.lower().endswith(".gguf")
    if len(ours) == len(theirs) == 2 and ours[0] != theirs[0] and not is_file:
        return False
    return theirs[-1].startswith(ours[-1]) and bool(_VERSION.fullmatch(theirs[-1][len(ours[-1]) :]))


def _parts(name: str) -> list[str]:
    """Its folders, the last part being the model."""
    return re.split(r"[/\\]", name.strip().lower().rstrip("/\\").removesuffix(".gguf"))


def _content(said: dict) -> tuple[str, str | None]:
    """(text, fault) of a decoded reply. What the model thought is in the text, as it is where a server does
    not take it out."""
    choices = said.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return "", "bad_reply"
    content, reason = message.get("content"), choice.get("finish_reason") or ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    thought = message.get("reasoning_content") or message.get("reasoning")
    thought = thought if isinstance(thought, str) else ""
    if not isinstance(content, str | None):
        return "", "bad_reply"
    text = content = (content or "")[:LONGEST]
    if thought:
        room = max(0, LONGEST - len(content) - len("<think></think>\n\n"))
        text = f"<think>{thought[:room]}</think>\n\n{content}"[:LONGEST]
    elif "<think>" in content and "</think>" not in content:  # cut off while it thought: nothing is an answer
        text = f"{content[: LONGEST - len('</think>')]}</think>"
    text = text.encode(errors="replace").decode()  # half a surrogate pair fits no file
    if not isinstance(reason, str) or reason.lower() not in ENDS:
        return text, "bad_reply"
    return text, ENDS[reason.lower()] or (None if content.strip() else "empty")


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < 1 << 32 else 0
