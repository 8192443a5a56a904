"""Valid inputs made odd: bytes by blind edits, JSON by edits of its tree."""

import copy
import json
from collections.abc import Sequence
from random import Random

LARGEST = 1 << 18  # bytes of an input

# What readers tend to trip over, to be put anywhere.
ODD = [
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"0.5", b"1e-400", b"9" * 5000, b"2147483648", b"1_0"),
    *(
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b'"',
        b"'",
        b"\\",
        b"\\ud800",
        b"\\u0000",
        b",",
        b":",
        b"::",
        b"|",
    ),
    *(b"[" * 300, b"[" * 4000, b'{"a":' * 3000, b"(" * 500, b"-" * 3000, b"{" * 3000, b"]", b"}"),
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\r",
        b"\n",
        b"\r\n",
        b"\t",
    ),
    *("\u202e", "\u200b", "\u2028", "\x85", "\x1b[2J", "\x07", "é", "e\u0301", "１", "²", "\U000e0041", "ﬁ"),
    *("<script>alert(1)</script>", "<think>", "</think>", "<｜Assistant｜>", "<|Assistant|>", "=1+1", "@a"),
    *("../../x", "/dev/null", "a\x00b", "x" * 300, "x" * 30_000, "%s%n", "{0.__class__}", "&#27;", "&lt;"),
    *("\u0301\u0323" * 500, " " * 5000, "Order:", "Rating:", " > ", "[1]", "(1999)", "__import__('os')"),
]
ODD = [odd if isinstance(odd, bytes) else odd.encode() for odd in ODD]

VALUES = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, 5e-324),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "x",
        "0",
        "\ud800",
        "a\x00b",
        "../../x",
        "/",
        "x" * 5000,
    ),
    *([], {}, [[]], [None], {"": None}, [1, "a"], {"a": {"b": {}}}, "NaN", "\x1b[2J", [0] * 300),
]


def mutate(rng: Random, data: bytes) -> bytes:
    """`data` after one to four edits, each anywhere in it."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((1, 1, 2, 8, 64)))
        match rng.randrange(8):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                out[at:end] = rng.randbytes(end - at)
            case 2:
                out[at:at] = rng.choice(ODD)
            case 3:
                out[at:end] = rng.choice(ODD)
            case 4:
                del out[at:end]
            case 5:
                out[at:at] = out[at:end] * rng.choice((1, 2, 40))
            case 6:
                lines = bytes(out).split(b"\n")
                rng.shuffle(lines)
                out = bytearray(b"\n".join(lines))
            case _ if rng.randrange(4) == 0:
                del out[at:]
    return bytes(out[:LARGEST])


def mutate_json(rng: Random, value: object) -> bytes:
    """A tree with one to three nodes replaced, renamed, left out or wrapped; at times its text is edited."""
    value = json.loads(json.dumps(value))  # a copy of its own
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _edited(rng, value)
    text = json.dumps(value, ensure_ascii=bool(rng.randrange(2))).encode(errors="surrogatepass")
    return mutate(rng, text) if rng.randrange(4) == 0 else text[:LARGEST]


def mutate_lines(rng: Random, rows: Sequence) -> bytes:
    """JSON lines of which one is edited, repeated or cut."""
    lines = [json.dumps(row).encode() for row in rows]
    k = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0 | 1:
            lines[k] = mutate_json(rng, rows[k])
        case 2:
            lines[k] = mutate(rng, lines[k])
        case _:
            lines.insert(k, rng.choice(lines))
    return b"\n".join(lines) + (b"\n" if rng.randrange(8) else b"")


def text_of(data: bytes) -> str:
    """Bytes as text that may hold anything a string can, halves of surrogate pairs included."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _edited(rng: Random, value: object) -> object:
    """`value` with one node of it changed."""
    if not isinstance(value, dict | list) or not value or rng.randrange(4) == 0:
        return [value] if rng.randrange(8) == 0 else copy.deepcopy(rng.choice(VALUES))
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    if rng.randrange(2):
        value[key] = _edited(rng, value[key])
    elif rng.randrange(2):
        value[key] = copy.deepcopy(rng.choice(VALUES))
    elif isinstance(value, dict):
        held = value.pop(key)
        if rng.randrange(2):
            value[rng.choice((f"{key}x", key.upper(), "", "../x", "\x00"))] = held
    else:
        del value[key]
    return value
