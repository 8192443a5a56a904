"""A server that speaks no HTTP, or HTTP that no library writes, byte by byte over a real socket."""

import contextlib
import gzip
import json
import random
import socket
import socketserver
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable

import pytest

from r2rec_jax.prompts.wording import wording
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.annotator import annotate
from r2rec_jax.teachers.journal import Journal
from r2rec_jax.teachers.request import Request
from r2rec_jax.teachers.server import LARGEST, ServerTeacher
from r2rec_jax.teachers.template import TemplateTeacher
from r2rec_jax.teachers.validator import Validator
from tests.teachers.asked import questions_of

LIMIT_S = 0.6

Behave = Callable[[socket.socket], None]


def http(body: bytes, headers: str = "", status: str = "200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n".encode() + body
    )


def good(text: str = "Fine.") -> bytes:
    message = {"role": "assistant", "content": text}
    said = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    return http(json.dumps(said).encode())


class Server:
    """Answers request k by `behave[k](connection)`, later ones with `fallback(prompt)`."""

    def __init__(self, behave: list[Behave] = (), fallback: Callable[[str], bytes] = lambda _: good()):
        server, self.behave, self.fallback, self.prompts = self, list(behave), fallback, []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                with contextlib.suppress(OSError):
                    self.connection.settimeout(10)
                    length = 0
                    while (line := self.rfile.readline()).strip():
                        name, _, value = line.partition(b":")
                        length = int(value) if name.lower() == b"content-length" else length
                    prompt = json.loads(self.rfile.read(length))["messages"][0]["content"]
                    server.prompts.append(prompt)
                    if server.behave:
                        server.behave.pop(0)(self.connection)
                    else:
                        self.connection.sendall(server.fallback(prompt))

        self.tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.tcp.daemon_threads, self.tcp.block_on_close = True, False
        threading.Thread(target=self.tcp.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.tcp.server_address[1]}/v1"


@pytest.fixture
def serve():
    """serve(*arguments) -> a Server that ends with the test."""
    servers = []

    def start(*arguments, **settings):
        servers.append(Server(*arguments, **settings))
        return servers[-1]

    yield start
    for one in servers:
        one.tcp.shutdown()
        one.tcp.server_close()


@pytest.fixture
def ask(config):
    """ask(server, n) -> replies to asks "0".."n-1" by text, asked one after another, each once."""

    def ask(server, n=2, **changes):
        settings = {"base_url": server.url, "retries": 0, "concurrency": 1, "timeout_s": LIMIT_S}
        config.annotate.openai.update(settings | changes)
        replies = {}
        teacher = ServerTeacher(config.annotate, 0.0)
        teacher(
            [Request(None, str(k), 1) for k in range(n)], lambda ask, reply: replies.update({ask.text: reply})
        )
        return replies

    return ask


def send(*parts: bytes, every: float = 0.0) -> Behave:
    """Sends the parts, `every` seconds one, and hangs up."""

    def behave(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(every)

    return behave


def endless(opening: bytes, part: bytes, every: float = 0.0) -> Behave:
    """Sends `part` until nobody listens, or for ten seconds."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(opening)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            connection.sendall(part)
            time.sleep(every)

    return behave


def reset(connection: socket.socket) -> None:
    connection.sendall(good()[:60])
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
STATUS = b"HTTP/1.1 200 OK\r\n"
LOST = {
    "says nothing": send(),
    "dies in the middle of its answer": send(http(b'{"model": "m", "cho', length=1000)),
    "resets the connection": reset,
    "stalls before its answer": send(b"", every=3.0),
    "stalls in the middle of it": send(http(b'{"model"', length=1000), b"", every=3.0),
    "sends a byte now and then": endless(http(b"", length=100_000), b" ", every=0.05),
    "sends a header now and then": endless(STATUS, b"X-Slow: 1\r\n", every=0.05),
    "sends headers without end": endless(STATUS, b"X-Many: 1\r\n" * 1000),
    "sends a header of two megabytes": send(STATUS + b"X-Long: " + b"a" * 2_000_000 + b"\r\n\r\n"),
    "goes on announcing an answer": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=0.01),
    "speaks something else": send(b"SSH-2.0-OpenSSH_9.7\r\n" * 100),
    "sends nothing but zeros": send(bytes(200_000)),
    "names two lengths": send(http(b"{}", "Content-Length: 900\r\n")),
    "names a negative length": send(http(b"{}", length=-5)),
    "fails in an encoding that is no text": send(
        http(b"zz", "Content-Type: text/plain; charset=hex\r\n", "500 Oops")
    ),
    "fails in an encoding that unpacks": send(
        http(b"zz", "Content-Type: text/plain; charset=zlib\r\n", "500 Oops")
    ),
    "fails, nested": send(http(b'{"error": {"code": ' + b"[" * 9000 + b"]" * 9000 + b"}}", status="503 No")),
    "asks for patience without measure": send(http(b"", "Retry-After: 1e400\r\n", "429 Slow")),
}
REFUSED = {
    "sends a page": ("bad_reply", send(http(b"<!doctype html><h1>Busy</h1>", "Content-Type: text/html\r\n"))),
    "sends a body without end": ("bad_reply", endless(CHUNKED, CHUNK)),
    "promises a terabyte": ("bad_reply", endless(http(b"", length=1 << 40), b" " * 65536)),
    "sends gzip unasked": ("bad_reply", send(http(gzip.compress(b"{}"), "Content-Encoding: gzip\r\n"))),
    "sends 64 megabytes packed": (
        "bad_reply",
        send(http(gzip.compress(bytes(64 << 20), 1), "Content-Encoding: gzip\r\n")),
    ),
    "sends latin-1": ("bad_reply", send(http('{"model": "mé"}'.encode("latin-1")))),
    "sends no content": ("bad_reply", send(http(b"", status="204 No Content"))),
    "refuses, nested": (
        "refused",
        send(http(b'{"error": {"code": ' + b"[" * 900 + b"]" * 900 + b"}}", status="400 No")),
    ),
    "refuses in megabytes": ("refused", send(http(b"\x1b[2J" * 500_000, status="400 No"))),
}


@pytest.mark.parametrize("how", LOST)
def test_an_answer_that_never_was_is_lost_and_the_next_is_asked_for(serve, ask, how):
    server, start = serve([LOST[how]]), time.monotonic()
    replies = ask(server)
    assert time.monotonic() - start < 8.0  # an endless one goes on for ten seconds
    assert replies["0"] is None and replies["1"].text == "Fine." and len(server.prompts) == 2


@pytest.mark.parametrize("how", REFUSED)
def test_an_answer_of_another_kind_is_a_fault_and_takes_little_memory(serve, ask, how):
    fault, behave = REFUSED[how]
    server, start = serve([behave]), time.monotonic()
    ask(serve())  # what the client loads once
    tracemalloc.start()
    replies = ask(server, timeout_s=5.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert replies["0"].fault == fault and replies["0"].text == "" and replies["1"].fault is None
    assert peak < 6 * LARGEST and time.monotonic() - start < 8.0


@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_prompt_goes_to_no_other_server(serve, ask, status):
    elsewhere = serve()
    server = serve([send(http(b"", f"Location: {elsewhere.url}/chat/completions\r\n", status))])
    with pytest.raises(UserError, match=f"answered {status[:3]}.*check annotate.openai.base_url"):
        ask(server)
    assert len(server.prompts) == 1 and elsewhere.prompts == []


def test_what_stalls_is_tried_again_within_its_time(serve, ask):
    server = serve([LOST["sends a byte now and then"]])
    assert ask(server, n=1, retries=1)["0"].text == "Fine." and len(server.prompts) == 2


def test_a_server_of_every_fault_leaves_the_traces_of_a_good_one(
    serve, dataset, chat, config, tmp_path, monkeypatch
):
    """Killed, stalled and lied to, run after run, until every question has its trace."""
    monkeypatch.setattr("r2rec_jax.teachers.server.LOST_IN_A_ROW", 4)
    config.annotate.hint = False
    asked = questions_of(dataset, chat, config)[:24]
    words = wording(config.prompt.wording)
    template, said = TemplateTeacher(dataset.catalog, words, config.prompt), {}
    asks = [Request(question, question.prompt, 1) for question in asked]
    template(asks, lambda ask, reply: said.update({ask.text: reply.text}))

    def run(server, folder) -> None:
        settings = {"base_url": server.url, "retries": 0, "concurrency": 3, "timeout_s": LIMIT_S}
        config.annotate.openai.update(settings)
        validator = Validator(dataset.catalog, words, chat, config.prompt, 1000)
        teacher = ServerTeacher(config.annotate, 0.0)
        annotate(asked, teacher, lambda question, _: question.prompt, validator, Journal(folder), 50)

    run(serve(fallback=lambda prompt: good(said[prompt])), tmp_path / "good")
    slow = [how for how in LOST if "stalls" in how or "now and then" in how or "announcing" in how]
    quick = [LOST[how] for how in LOST if how not in slow] + [REFUSED[how][1] for how in REFUSED]
    script = [random.Random(0).choice(quick) for _ in range(60)] + [LOST[how] for how in slow]
    random.Random(1).shuffle(script)
    # Good answers in between, cut or of another model, which must be told from whole ones.
    script += [lambda c: c.sendall(good(said[asked[0].prompt]).replace(b'"m"', b'"x"'))]
    script += [lambda c: c.sendall(good(said[asked[0].prompt]).replace(b'"stop"', b'"length"'))]
    server, runs = serve(script, lambda prompt: good(said[prompt])), 0
    while not (tmp_path / "bad" / "traces.jsonl").exists():
        runs += 1
        with contextlib.suppress(UserError):
            run(server, tmp_path / "bad")
        if (tmp_path / "bad" / "replies.jsonl").exists():
            for line in (tmp_path / "bad" / "replies.jsonl").read_bytes().splitlines():
                assert json.loads(line)["refused"] in (
                    None,
                    "bad_reply",
                    "wrong_model",
                    "truncated",
                    "refused",
                )
    assert runs > 3 and not server.behave
    traces = [(tmp_path / name / "traces.jsonl").read_bytes() for name in ("good", "bad")]
    assert traces[0] == traces[1] and len(traces[0].splitlines()) == len(asked)
