"""Read-only text sequences over flat arrays, for catalogues of millions of items.

Each `Sequence` decodes an element on access, so opening a prepared folder takes constant time. The arrays
may be memory maps.
"""

import operator
from array import array
from collections.abc import Iterable, Sequence

import numpy as np


class Texts(Sequence):
    """n strings as one UTF-8 blob: uint8[bytes], string k at offsets[k]:offsets[k + 1], int64[n + 1]."""

    def __init__(self, blob: np.ndarray, offsets: np.ndarray):
        if len(blob) != offsets[-1]:
            raise ValueError(f"{len(blob)} bytes of text, but the offsets end at {offsets[-1]}")
        self.blob, self.offsets = blob, offsets

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        if isinstance(texts, Texts):
            return texts
        blob, offsets = bytearray(), array("q", [0])
        for text in texts:
            # A lone surrogate is not valid text, but must not fail a catalogue of millions.
            blob += text.encode("utf-8", "surrogatepass")
            offsets.append(len(blob))
        return cls(np.frombuffer(blob, np.uint8), np.frombuffer(offsets, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index) -> str:
        k = _place(index, len(self))
        piece = self.blob[self.offsets[k] : self.offsets[k + 1]]
        return piece.tobytes().decode("utf-8", "surrogatepass")

    def find(self, text: str) -> int | None:
        """The index of the first element equal to `text`, or None. Decodes no element."""
        wanted = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
        places = np.flatnonzero(np.diff(self.offsets) == len(wanted))
        for k, byte in enumerate(wanted):
            places = places[self.blob[self.offsets[places] + k] == byte]
        return int(places[0]) if len(places) else None


class Labels(Sequence):
    """n tuples of names: tuple k is names[codes[offsets[k]:offsets[k + 1]]]; codes int32, offsets int64."""

    def __init__(self, names: list[str], codes: np.ndarray, offsets: np.ndarray):
        if len(codes) != offsets[-1]:
            raise ValueError(f"{len(codes)} labels, but the offsets end at {offsets[-1]}")
        self.names, self.codes, self.offsets = names, codes, offsets

    @classmethod
    def of(cls, tuples: Iterable[Sequence[str]]) -> "Labels":
        builder = LabelsBuilder()
        for names in tuples:
            builder.append(names)
        return builder.labels()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index) -> tuple[str, ...]:
        k = _place(index, len(self))
        return tuple(self.names[code] for code in self.codes[self.offsets[k] : self.offsets[k + 1]])


class LabelsBuilder:
    """Builds `Labels` one tuple at a time."""

    def __init__(self):
        self._code: dict[str, int] = {}
        self._codes, self._offsets = array("i"), array("q", [0])

    def append(self, names: Sequence[str]) -> None:
        self._codes.extend(self._code.setdefault(name, len(self._code)) for name in names)
        self._offsets.append(len(self._codes))

    def labels(self) -> Labels:
        codes, offsets = np.frombuffer(self._codes, np.int32), np.frombuffer(self._offsets, np.int64)
        return Labels(list(self._code), codes, offsets)


class Traits(Sequence):
    """n dicts with a few fields: values[field] lists a field's values, codes int32[n, fields] indexes them.

    The code -1 means that the element lacks the field. Without fields every element is {}.
    """

    def __init__(self, values: dict[str, list[str]], codes: np.ndarray):
        if codes.ndim != 2 or codes.shape[1] != len(values):
            raise ValueError(f"codes of shape {codes.shape} for {len(values)} fields")
        self.values, self.codes = values, codes

    @classmethod
    def of(cls, dicts: Sequence[dict[str, str]]) -> "Traits":
        if isinstance(dicts, Traits):
            return dicts
        fields = list(dict.fromkeys(field for traits in dicts for field in traits))
        code: dict[str, dict[str, int]] = {field: {} for field in fields}
        codes = np.full((len(dicts), len(fields)), -1, np.int32)
        for row, traits in zip(codes, dicts, strict=True):
            for field, value in traits.items():
                row[fields.index(field)] = code[field].setdefault(value, len(code[field]))
        return cls({field: list(values) for field, values in code.items()}, codes)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index) -> dict[str, str]:
        row = self.codes[_place(index, len(self))]
        pairs = zip(self.values.items(), row, strict=True)
        return {field: values[code] for (field, values), code in pairs if code >= 0}


def _place(index, length: int) -> int:
    k = operator.index(index)
    if not -length <= k < length:
        raise IndexError(f"{k} is outside a sequence of {length}")
    return k % length
