"""The client of a server against one that misbehaves in every way, and against a real one.

For the real one set R2REC_PEERS to the Python of an environment with `transformers[serving]` and torch.
"""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers import server
from r2rec_jax.teachers.request import Request
from r2rec_jax.teachers.server import ServerTeacher
from r2rec_jax.teachers.server_reply import is_model, read_completion

MODEL = Path(__file__).parents[2] / "models" / "tiny-llama"


def completion(content="Fine.", *, model="m", reason="stop", usage=(7, 3)) -> dict:
    return {
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": reason}
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }


class Fake:
    """A server that plays `script`, steps of (status, headers, body) or seconds to stall; then it is good."""

    def __init__(self):
        self.script, self.requests, self.now, self.most = [], [], 0, 0
        self.keys, self.lock, self.delay = [], threading.Lock(), 0.0
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with fake.lock:
                    fake.now += 1
                    fake.most = max(fake.most, fake.now)
                    fake.requests.append((time.monotonic(), json.loads(body)))
                    fake.keys.append(self.headers["Authorization"])
                    step = fake.script.pop(0) if fake.script else (200, {}, completion())
                time.sleep(fake.delay)
                if isinstance(step, float):
                    time.sleep(step)
                    step = (200, {}, completion())
                status, headers, said = step
                data = said if isinstance(said, bytes) else json.dumps(said).encode()
                with fake.lock:
                    fake.now -= 1
                with contextlib.suppress(OSError):  # a client that has given up
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def fake():
    fake = Fake()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


@pytest.fixture
def ask(fake, config):
    """ask(n, spent=0, **openai) -> (the teacher, its replies to asks "0".."n-1" by text)."""

    def ask(n=1, spent=0.0, hint=True, **changes):
        config.annotate.hint = hint
        config.annotate.openai.update({"base_url": fake.url} | changes)
        teacher, replies = ServerTeacher(config.annotate, spent), {}
        teacher(
            [Request(None, str(k), 1) for k in range(n)], lambda ask, reply: replies.update({ask.text: reply})
        )
        return teacher, replies

    return ask


def test_a_reply_is_read_with_its_tokens_and_cost(ask, fake):
    teacher, replies = ask(5)
    assert sorted(replies) == list("01234")
    for reply in replies.values():
        assert (reply.text, reply.fault, reply.prompt_tokens, reply.completion_tokens) == (
            "Fine.",
            None,
            7,
            3,
        )
        assert reply.cost == pytest.approx((7 * 1.0 + 3 * 2.0) / 1e6)
    assert teacher.server.spent == pytest.approx(5 * 13e-6)
    _, sent = fake.requests[0]
    assert sent["model"] == "m" and sent["messages"] == [
        {"role": "user", "content": sent["messages"][0]["content"]}
    ]
    assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.6, 0.9, 1000)


def test_no_more_requests_at_once_than_allowed(ask, fake):
    fake.delay = 0.05
    ask(12, concurrency=3)
    assert fake.most == 3 and len(fake.requests) == 12


def test_requests_are_paced(ask, fake):
    ask(4, requests_per_minute=600)
    times = [when for when, _ in fake.requests]
    assert times[-1] - times[0] > 0.25  # three pauses of a tenth of a second


def test_too_many_requests_waits_as_long_as_the_server_says(ask, fake):
    fake.script = [(429, {"Retry-After": "1"}, {"error": {"message": "slow down"}})]
    _, replies = ask(1)
    (first, _), (second, _) = fake.requests
    assert replies["0"].text == "Fine." and 0.9 < second - first < 3.0


def test_server_errors_stalls_and_lost_connections_are_tried_again(ask, fake):
    fake.script = [(500, {}, b"oops")]
    assert ask(1)[1]["0"].text == "Fine."
    fake.script = [1.5]
    assert ask(1, timeout_s=0.3)[1]["0"].text == "Fine."


def test_what_was_lost_for_good_is_handed_back(ask, fake):
    fake.script = [(503, {}, b"")]
    _, replies = ask(2, retries=0, concurrency=1)
    assert replies["0"] is None and replies["1"].text == "Fine."


def test_a_server_that_is_down_ends_in_one_line(ask, fake, monkeypatch):
    monkeypatch.setattr(server, "LOST_IN_A_ROW", 3)
    with pytest.raises(UserError, match="failed 3 times in a row, last with APIConnectionError"):
        ask(9, base_url="http://127.0.0.1:9/v1", retries=0, concurrency=2)
    fake.script = [(500, {}, b"")] * 3
    with pytest.raises(UserError, match=r"InternalServerError.*run the same command again"):
        ask(9, retries=0, concurrency=1)
    assert len(fake.requests) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_everything(ask, fake, status):
    fake.script = [(status, {}, {"error": {"message": "bad\nkey"}})] * 50
    with pytest.raises(UserError, match=f"answered {status}.*check annotate.openai.base_url") as caught:
        ask(50, concurrency=2)
    assert "\n" not in str(caught.value) and len(fake.requests) <= 4


def test_a_request_that_the_server_will_not_take_is_a_refusal(ask, fake):
    fake.script = [(400, {}, {"error": {"message": "content policy"}})]
    _, replies = ask(2, concurrency=1)
    assert replies["0"].fault == "refused" and replies["1"].fault is None


def test_a_server_that_takes_no_request_at_all_is_asked_no_more(ask, fake, monkeypatch):
    monkeypatch.setattr(server, "REFUSED_IN_A_ROW", 3)
    refusal = (400, {}, {"error": {"message": "'temperature' is not supported with this model"}})
    fake.script = [refusal, refusal, (200, {}, completion())] + [refusal] * 9
    with pytest.raises(UserError, match=r"refused 3 requests in a row.*'temperature' is not.*thought"):
        ask(20, concurrency=1)
    assert len(fake.requests) == 6


def test_a_model_that_thinks_unseen_is_asked_as_it_wants(ask, fake):
    ask(1, thought_tokens=5000)
    _, sent = fake.requests[0]
    assert set(sent) == {"model", "messages", "max_completion_tokens"}
    assert sent["max_completion_tokens"] == 6000


LIES = [
    ("bad_reply", b'{"model": "m", "choices": [{"mess'),
    ("bad_reply", b"<html>busy</html>"),
    ("bad_reply", b"\xff\xfe"),
    ("bad_reply", b"[" * 100_000),
    ("bad_reply", [1, 2]),
    ("bad_reply", completion() | {"choices": []}),
    ("bad_reply", completion() | {"choices": {"0": "text"}}),
    ("bad_reply", completion(["a", "list"])),
    ("bad_reply", completion(reason="tool_calls")),
    ("bad_reply", completion(reason=["stop"])),
    ("truncated", completion("The viewer ga", reason="length")),
    ("refused", completion("", reason="content_filter")),
    ("empty", completion(None)),
    ("empty", completion("  \n")),
]


@pytest.mark.parametrize(("fault", "body"), LIES)
def test_a_lie_is_a_counted_fault(ask, fake, fault, body):
    fake.script = [(200, {}, body)]
    _, replies = ask(2, concurrency=1)
    assert replies["0"].fault == fault and replies["1"].fault is None


def test_odd_numbers_and_characters_do_no_harm(config):
    said = completion("half \ud800 pair", usage=(10**400, -3))
    reply = read_completion(json.dumps(said).encode(), config.annotate.openai)
    assert reply.text == "half ? pair" and (reply.prompt_tokens, reply.completion_tokens) == (0, 0)
    no_usage = {name: value for name, value in completion().items() if name != "usage"}
    assert read_completion(json.dumps(no_usage).encode(), config.annotate.openai).cost == 0.0


def test_a_version_after_the_models_name_is_no_other_model(config):
    c = config.annotate.openai
    assert read_completion(json.dumps(completion(model="m-2024-07-18")).encode(), c).fault is None
    c.reported_model = "weights.gguf"
    assert read_completion(json.dumps(completion(model="m")).encode(), c).other_model == "m"
    assert read_completion(json.dumps(completion(model="weights.gguf")).encode(), c).other_model == ""


@pytest.mark.parametrize(
    ("asked", "told", "same"),
    [
        ("Qwen/Qwen3-8B", "Qwen3-8B", True),
        ("Qwen3-8B", "Qwen/Qwen3-8B", True),
        ("Qwen/Qwen3-8B", "qwen/qwen3-8b", True),
        ("Qwen/Qwen3-8B", "/models/Qwen3-8B.gguf", True),  # llama.cpp
        ("Qwen/Qwen3-8B", "models/Qwen3-8B.gguf", True),
        ("Qwen/Qwen3-8B", "C:\\models\\Qwen3-8B", True),
        ("/srv/tiny-llama", "/srv/tiny-llama@main", True),  # transformers serve
        ("llama3.1", "llama3.1:latest", True),  # Ollama
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0125-preview", True),
        ("m", "", True),  # TGI once
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("Qwen/Qwen3-8B", "unsloth/Qwen3-8B", False),
        ("Qwen/Qwen3-8B", "Qwen3-8B-Q4_K_M.gguf", False),
        ("Qwen/Qwen3-8B", "Qwen3-14B", False),
        ("llama3.1:8b", "llama3.1:70b", False),
    ],
)
def test_names_that_are_the_same_model(asked, told, same):
    assert is_model(told, asked) == same


def test_another_models_name_stops_at_once_and_names_both(ask, fake):
    fake.script = [(200, {}, completion(model="cheap"))] * 40
    with pytest.raises(UserError) as caught:
        ask(40, concurrency=3)
    assert len(fake.requests) <= 3
    told = f"{fake.url} answered as 'cheap', not as the requested 'm'; its replies are kept"
    assert told in str(caught.value) and "--config.annotate.openai.reported_model=cheap" in str(caught.value)


# Chat completions as servers send them: what is besides a text, and what is read.
SERVERS = {
    "vLLM": ({"finish_reason": "stop", "stop_reason": None, "logprobs": None}, {}, "Fine.", None),
    "vLLM, thinking": (
        {"finish_reason": "stop", "stop_reason": 151645},
        {"reasoning_content": "Hm.\n", "tool_calls": []},
        "<think>Hm.\n</think>\n\nFine.",
        None,
    ),
    "vLLM, cut while thinking": (
        {"finish_reason": "length"},
        {"content": None, "reasoning": "Hm, Order: 1"},
        "<think>Hm, Order: 1</think>\n\n",
        "truncated",
    ),
    "vLLM, aborted": ({"finish_reason": "abort"}, {}, "Fine.", "bad_reply"),
    "llama.cpp": ({"finish_reason": "stop", "timings": {}}, {"tool_calls": None}, "Fine.", None),
    "llama.cpp, once": ({"finish_reason": None}, {}, "Fine.", None),
    "TGI, once": ({"finish_reason": "eos_token", "logprobs": None}, {"name": None}, "Fine.", None),
    "TGI, stop text": ({"finish_reason": "stop_sequence"}, {}, "Fine.", None),
    "Ollama": ({"finish_reason": "stop"}, {"reasoning": "Hm."}, "<think>Hm.</think>\n\nFine.", None),
    "LM Studio": ({"logprobs": None, "finish_reason": "length"}, {"content": "Fi"}, "Fi", "truncated"),
    "no reason": ({}, {}, "Fine.", None),
    "parts": (
        {"finish_reason": "stop"},
        {"content": [{"type": "text", "text": "Fi"}, {"type": "text", "text": "ne."}]},
        "Fine.",
        None,
    ),
    "cut in a block": ({"finish_reason": "length"}, {"content": "<think>A"}, "<think>A</think>", "truncated"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_replies_as_servers_send_them(config, name):
    choice, message, text, fault = SERVERS[name]
    said = completion() | {"system_fingerprint": "b1", "stats": {}, "kv_transfer_params": None}
    said["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "Fine."} | message} | choice]
    reply = read_completion(json.dumps(said).encode(), config.annotate.openai)
    assert (reply.text, reply.fault, reply.other_model) == (text, fault, "")


@pytest.mark.parametrize(
    ("changes", "environment", "told"),
    [
        ({}, {"ALL_PROXY": "socks5://127.0.0.1:1"}, "ALL_PROXY"),
        ({}, {"HTTP_PROXY": "gopher://127.0.0.1:1"}, "HTTP_PROXY"),
        ({"base_url": "localhost:8000/v1"}, {}, "it must begin with http://"),
        ({"key_variable": "SOME_KEY"}, {"SOME_KEY": "\u201csecret\u201d"}, "SOME_KEY contains '\u201c'"),
        ({"key_variable": "SOME_KEY"}, {"SOME_KEY": "secret\n"}, r"SOME_KEY contains '\n'"),
    ],
)
def test_what_the_client_cannot_use_is_one_line_before_anything_is_asked(
    ask, fake, monkeypatch, changes, environment, told
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        ask(1, **changes)
    message = str(caught.value)
    assert told in message and "\n" not in message and "secret" not in message and not fake.requests


def test_what_a_model_thinks_for_itself_is_no_trace(ask, fake):
    thinking = (200, {}, completion("<think>The answer is 4.</think>\n\nOne.\nRating: 4"))
    fake.script = [thinking, thinking]
    assert ask(1)[1]["0"].text.strip() == "One.\nRating: 4"
    assert "The answer is 4." in ask(1, hint=False)[1]["0"].text


def test_the_cost_limit_stops_before_the_next_request(ask, fake):
    with pytest.raises(UserError, match="cost_limit 3e-05 is reached"):
        ask(9, cost_limit=30e-6, concurrency=1)
    assert len(fake.requests) == 3  # 13 millionths each
    with pytest.raises(UserError, match="cost_limit"):
        ask(9, cost_limit=30e-6, spent=1.0)
    assert len(fake.requests) == 3
    ask(2, cost_limit=30e-6)


def test_the_key_comes_from_the_environment_alone(ask, fake, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(UserError, match="environment has no SOME_KEY"):
        ask(1, key_variable="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "secret")
    ask(1, key_variable="SOME_KEY")
    assert fake.keys[-1] == "Bearer secret"
    with pytest.raises(UserError, match="model is empty"):
        ask(1, model="")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_gets_through(fake, config, number):
    config.annotate.openai.base_url = fake.url
    fake.delay, received = 0.05, []

    def receive(ask, _):
        received.append(ask.text)
        if len(received) == 4:
            os.kill(os.getpid(), number)

    asks = [Request(None, str(k), 1) for k in range(40)]
    before = {
        kind: signal.signal(kind, signal.default_int_handler) for kind in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with pytest.raises(KeyboardInterrupt):
            ServerTeacher(config.annotate, 0.0)(asks, receive)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    assert 4 <= len(received) < 12
    ServerTeacher(config.annotate, 0.0)(asks, lambda ask, _: received.append(ask.text))
    assert set(received) == {ask.text for ask in asks}


@pytest.mark.slow
def test_a_real_server_answers(config, tmp_path):
    peers = os.environ.get("R2REC_PEERS")
    if not peers:
        pytest.skip("R2REC_PEERS names no Python with transformers[serving]")
    folder = tmp_path / "served"
    shutil.copytree(MODEL, folder)
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}<｜User｜>{{ m['content'] }}{% endfor %}<｜Assistant｜>"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        Path(peers).parent / "transformers",
        "serve",
        folder,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(120):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            time.sleep(1)
        config.annotate.max_tokens = 24
        config.annotate.openai.update(
            {
                "base_url": f"http://127.0.0.1:{port}/v1",
                "model": str(folder),
                "timeout_s": 60.0,
                "concurrency": 1,
            }
        )
        replies = []
        asks = [Request(None, "Kai is fond of Harbor. Order the best 2.", 1)] * 2
        ServerTeacher(config.annotate, 0.0)(asks, lambda _, reply: replies.append(reply))
        assert len(replies) == 2
        for reply in replies:
            assert reply.fault in (None, "truncated") and reply.text
            assert reply.prompt_tokens > 5 and 0 < reply.completion_tokens <= 24
    finally:
        process.terminate()
        process.wait(30)
