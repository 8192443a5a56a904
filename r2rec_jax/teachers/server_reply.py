"""Parses chat completions as vLLM, llama.cpp, TGI, Ollama, LM Studio and OpenAI send them."""

import re

from r2rec_jax.runtime.untrusted import parse_json
from r2rec_jax.teachers.config import ServerConfig
from r2rec_jax.teachers.request import Reply

LONGEST = 100_000  # maximum characters kept of a reply
# finish_reason in the spelling of each server -> the reply's fault. Some servers send none.
ENDS = dict.fromkeys(("", "stop", "eos", "eos_token", "stop_sequence", "end_turn"))
ENDS |= dict.fromkeys(("length", "max_tokens", "model_length"), "truncated")
ENDS |= {"content_filter": "refused"}
# Suffixes that servers add to the requested name: "@main", ":latest", "-2024-07-18", "-0613".
_VERSION = re.compile(r"(@[\w.-]+|:latest|-(\d{4}|\d{8}|\d{4}-\d{2}-\d{2})(-preview)?)?")


def read_completion(body: bytes, config: ServerConfig) -> Reply:
    """Parses a response body into a Reply; a body that is no chat completion gives a Reply with a fault.

    `config` is the server's section, which has the model's name and the prices.
    """
    try:
        response = parse_json(body)
    except ValueError:
        return Reply("", "bad_reply")
    if not isinstance(response, dict):
        return Reply("", "bad_reply")
    usage, name = response.get("usage"), response.get("model")
    prompt, completion = (_count(usage, f"{kind}_tokens") for kind in ("prompt", "completion"))
    cost = (prompt * config.prompt_price + completion * config.completion_price) / 1e6
    is_other = isinstance(name, str) and not is_model(name, config.reported_model or config.model)
    text, fault = _content(response)
    return Reply(text, fault, prompt, completion, cost, name[:1000] if is_other else "")


def is_model(name: str, requested: str) -> bool:
    """Whether `name`, the model name in a reply, means the `requested` model.

    The comparison ignores case, a version suffix, a folder and the extension of a model file. It ignores a
    missing organisation, but two different organisations make two models. A reply without a name matches.
    """
    if not name.strip():
        return True
    ours, theirs = _parts(requested), _parts(name)
    is_file = name.lower().endswith(".gguf")
    if len(ours) == len(theirs) == 2 and ours[0] != theirs[0] and not is_file:
        return False
    return theirs[-1].startswith(ours[-1]) and bool(_VERSION.fullmatch(theirs[-1][len(ours[-1]) :]))


def _parts(name: str) -> list[str]:
    """The parts of a path or of organisation/model, in lower case; the last is the model."""
    return re.split(r"[/\\]", name.strip().lower().rstrip("/\\").removesuffix(".gguf"))


def _content(response: dict) -> tuple[str, str | None]:
    """(text, fault) of a decoded response.

    Hidden reasoning that the server returns in its own field is put into the text in a <think> block, where
    other servers leave it.
    """
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return "", "bad_reply"
    content, reason = message.get("content"), choice.get("finish_reason") or ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        content = "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    reasoning = reasoning if isinstance(reasoning, str) else ""
    if not isinstance(content, str | None):
        return "", "bad_reply"
    text = content = (content or "")[:LONGEST]
    if reasoning:
        limit = max(0, LONGEST - len(content) - len("<think></think>\n\n"))
        text = f"<think>{reasoning[:limit]}</think>\n\n{content}"[:LONGEST]
    elif (
        "<think>" in content and "</think>" not in content
    ):  # cut off inside the reasoning: there is no answer
        text = f"{content[: LONGEST - len('</think>')]}</think>"
    text = text.encode(errors="replace").decode()  # half a surrogate pair cannot be written as UTF-8
    if not isinstance(reason, str) or reason.lower() not in ENDS:
        return text, "bad_reply"
    return text, ENDS[reason.lower()] or (None if content.strip() else "empty")


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < 1 << 32 else 0
