"""A client for OpenAI-compatible servers, and the server teacher. All replies are untrusted input."""

import asyncio
import dataclasses
import os

import httpx2
import openai
from absl import logging

from r2rec_jax.runtime.errors import UserError, shown
from r2rec_jax.teachers.config import AnnotateConfig, ServerConfig
from r2rec_jax.teachers.request import Receive, Reply, Request
from r2rec_jax.teachers.server_reply import is_model, read_completion

REFUSED_IN_A_ROW = 10  # consecutive requests that the server rejects before the client stops
LOST_IN_A_ROW = 10  # consecutive requests without a reply, after retries, before the server counts as down
LARGEST = 4 << 20  # maximum bytes read of a reply, whatever its content-length
# The reply headers that the client keeps; they control retries.
HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")


class Server:
    """Sends concurrent requests to a server. A request contains only `Request.text` and sampling settings.

    `spent` is the total cost so far, earlier runs included; the cost limit applies to it.
    """

    def __init__(
        self,
        config: ServerConfig,
        where: str,
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        spent: float = 0.0,
    ):
        """`where` is the section's name in messages. A completion has at most `max_tokens` tokens.

        Raises UserError for a missing model name or key, a key that no HTTP header can hold, or a URL or
        proxy that the client cannot use.
        """
        self.c, self.where, self.spent = config, where, spent
        if not self.c.model:
            raise UserError(f"{where}.model is empty: set it to the name of the server's model")
        if self.c.concurrency < 1:
            raise UserError(f"{where}.concurrency {self.c.concurrency}: use at least 1")
        variable = self.c.key_variable
        if variable and not os.environ.get(variable):
            raise UserError(
                f"the environment has no {variable}: set it to the server's key, or set "
                f"{where}.key_variable to '' for a server that needs none"
            )
        if self.c.thought_tokens:  # reasoning models reject sampling settings
            self.settings = {"max_completion_tokens": max_tokens + self.c.thought_tokens}
        else:
            self.settings = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
        self._key = os.environ[variable] if variable else "none"
        if bad := next((c for c in self._key if not "!" <= c <= "~"), None):
            raise UserError(
                f"the environment's {variable} contains {bad!r}, which no key contains: set it to the key "
                "alone, without quotes, spaces or line ends"
            )
        if not self.c.base_url.startswith(("http://", "https://")):
            raise UserError(f"{where}.base_url {self.c.base_url!r}: it must begin with http:// or https://")
        try:
            self._client()
        except (ImportError, ValueError, httpx2.InvalidURL) as fault:
            raise UserError(
                f"{where}.base_url {self.c.base_url} cannot be used ({shown(fault, 200)}): correct it, or "
                "unset the environment's proxy (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) or use an http:// one"
            ) from None
        self._stopped = self._answered = False
        self._lost = self._refused = 0
        self._next_start = 0.0

    def __call__(self, requests: list[Request], receive: Receive) -> None:
        """Sends all requests and passes each reply to `receive`.

        Raises UserError if the server rejects the key, the model or the requests, is down, answers as
        another model, or the cost limit is reached. Replies to requests in flight are received first.
        """
        asyncio.run(self._send_all(requests, receive))
        if self._stopped:
            raise UserError(
                f"{self.where}.cost_limit {self.c.cost_limit:g} is reached ({self.spent:.4g}): raise it and "
                "run the same command again to continue"
            )

    async def _send_all(self, requests: list[Request], receive: Receive) -> None:
        queue, failures = iter(requests), []

        async def work(client: openai.AsyncOpenAI) -> None:
            for request in queue:
                if failures or self._is_spent():
                    return
                try:
                    reply = await self._send(client, request)
                except UserError as failure:
                    failures.append(failure)
                    return
                receive(request, reply)
                if reply and reply.other_model:
                    failures.append(self._other_model(reply.other_model))

        async with self._client() as client:
            await asyncio.gather(*(work(client) for _ in range(self.c.concurrency)))
        if failures:
            raise failures[0]

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self.c.base_url,
            timeout=self.c.timeout_s,
            max_retries=self.c.retries,
            http_client=_Bounded(self.c.timeout_s),
        )

    def is_model(self, name: str) -> bool:
        """Whether a server that calls its model `name` is the requested model."""
        return is_model(name, self.c.reported_model or self.c.model)

    def _other_model(self, name: str) -> UserError:
        requested, reported = self.c.reported_model or self.c.model, shown(name, 160)
        return UserError(
            f"{self.c.base_url} answered as {reported!r}, not as the requested {requested!r}; its "
            "replies are kept: if that is the model, add "
            f"--config.{self.where}.reported_model={reported} to the same command, else "
            f"correct {self.where}.model"
        )

    def _is_spent(self) -> bool:
        self._stopped |= 0 < self.c.cost_limit <= self.spent
        return self._stopped

    async def _send(self, client: openai.AsyncOpenAI, request: Request) -> Reply | None:
        await self._pace()
        try:
            response = await client.chat.completions.with_raw_response.create(
                model=self.c.model,
                messages=[{"role": "user", "content": request.text}],
                **self.settings,
            )
        except openai.APIStatusError as error:
            if error.status_code < 400 or error.status_code in (401, 403, 404):
                raise UserError(
                    f"{self.c.base_url} answered {error.status_code} ({shown(error, 160)}): check "
                    f"{self.where}.base_url, its model, and the key"
                ) from None
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                return self._refuse(error)
            return self._lose(error)
        except openai.APIConnectionError as error:
            return self._lose(error)
        self._lost = self._refused = 0
        reply = read_completion(response.content, self.c)
        self.spent += reply.cost
        if self.c.cost_limit and not (reply.cost or self._answered):
            logging.warning(
                "%s reports no cost: %s.cost_limit has no effect without token counts and prices",
                self.c.base_url,
                self.where,
            )
        self._answered = True
        return reply

    async def _pace(self) -> None:
        """Waits until this request may start under `requests_per_minute`."""
        if not self.c.requests_per_minute:
            return
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + 60.0 / self.c.requests_per_minute
        await asyncio.sleep(start - now)

    def _refuse(self, error: openai.APIStatusError) -> Reply:
        """Counts a rejected request; many in a row mean a wrong setting, one alone a rejected text."""
        self._refused += 1
        if self._refused >= REFUSED_IN_A_ROW:
            raise UserError(
                f"{self.c.base_url} refused {self._refused} requests in a row, last with "
                f"{error.status_code} ({shown(error, 160)}): check {self.where}.model and its "
                "thought_tokens"
            )
        return Reply("", "refused")

    def _lose(self, error: Exception) -> None:
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW:
            raise UserError(
                f"{self.c.base_url} failed {self._lost} times in a row, last with {type(error).__name__} "
                f"({shown(error, 160)}): run the same command again when it is up"
            )


class _Bounded(openai.DefaultAsyncHttpxClient):
    """An HTTP client that bounds each attempt to `limit_s` seconds and each reply to LARGEST bytes.

    Longer replies are cut. The client follows no redirect, because the prompt and the key are for one server.
    It decompresses nothing, because a megabyte can expand to gigabytes. It ignores the content-type header,
    because Python has encodings that are not text.
    """

    def __init__(self, limit_s: float):
        super().__init__(timeout=limit_s, headers={"Accept-Encoding": "identity"})
        self._limit_s = limit_s

    async def send(self, request: httpx2.Request, **settings) -> httpx2.Response:
        settings |= {"stream": True, "follow_redirects": False}
        try:
            # The library's own timeout restarts with every byte that a slow server sends.
            async with asyncio.timeout(self._limit_s):
                response = await super().send(request, **settings)
                try:
                    body = await _first_bytes(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no complete reply in time", request=request) from error
        headers = {name: value for name, value in response.headers.items() if name in HEADERS}
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)


async def _first_bytes(response: httpx2.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) >= LARGEST:
            break
    return bytes(body[:LARGEST])


class ServerTeacher:
    """Requests traces from a server; `config` is the `annotate` section."""

    def __init__(self, config: AnnotateConfig, spent: float):
        """`spent`: see Server. Raises UserError as Server does."""
        c = config
        sampling = {"max_tokens": c.max_tokens, "temperature": c.temperature, "top_p": c.top_p}
        self.server = Server(c.openai, "annotate.openai", **sampling, spent=spent)
        self.hint = config.hint

    def __call__(self, requests: list[Request], receive: Receive) -> None:
        """Raises UserError as Server does."""
        self.server(requests, lambda request, reply: receive(request, reply and self._without_thought(reply)))

    def _without_thought(self, reply: Reply) -> Reply:
        """Removes the think block with a hint; without one the block holds the reasoning of the trace."""
        thought, closed, rest = reply.text.rpartition("</think>")
        if not closed:
            return reply
        return dataclasses.replace(reply, text=rest if self.hint else f"{thought}\n{rest}")
