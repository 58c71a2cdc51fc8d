"""Hostile changes for `fuzz`: of bytes, of JSON, of tensors' files and of zips; values and arguments by Hypothesis."""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

Value = TypeVar("Value")

HOSTILE_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
HOSTILE_NUMBERS = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PLACES = ("head", "tail", "anywhere", "anywhere")  # where in a file a change is made
NAMES = ("../outside.json", "/tmp/outside.json", "manifest.json", "a\0b", "x" * 300, "sub/part", "C:\\x")

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ["", " ", "\n", "\0", "nan", "1e999", "-1", "../..", "🔩" * 20, "x" * 5000, "\u202e", "{}", "%s%n", "train", "good"]
)
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from([10**400, 2**31, 2**63, 1e308, 5e-324])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXTS, inside, max_size=4),
    max_leaves=8,
)


def drawn(strategy: st.SearchStrategy[Value], count: int, number: int) -> list[Value]:
    """As many values of a Hypothesis strategy, the same for the same number."""
    values: list[Value] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: Value) -> None:
        values.append(value)

    keep()
    return values


def changed_bytes(data: bytes, random: Random) -> bytes:
    """A file with one to eight changes: bits flipped, bytes or numbers overwritten, pieces cut, doubled or moved."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        if not changed:
            break
        random.choice(_BYTE_CHANGES)(changed, _position(len(changed), random), random)
    return bytes(changed)


def _position(length: int, random: Random) -> int:
    place = random.choice(PLACES)
    if place == "head":
        return random.randrange(min(length, 128))
    return length - 1 - random.randrange(min(length, 400)) if place == "tail" else random.randrange(length)


def _flip(data: bytearray, at: int, random: Random) -> None:
    data[at] ^= 1 << random.randrange(8)


def _overwrite(data: bytearray, at: int, random: Random) -> None:
    data[at] = random.choice((*HOSTILE_BYTES, random.randrange(256)))


def _number(data: bytearray, at: int, random: Random) -> None:
    size, order = random.choice((2, 4)), random.choice("<>")
    value = random.choice(HOSTILE_NUMBERS) % (1 << 8 * size)
    data[at : at + size] = struct.pack(f"{order}{'H' if size == 2 else 'I'}", value)


def _cut(data: bytearray, at: int, random: Random) -> None:
    del data[at:]


def _remove(data: bytearray, at: int, random: Random) -> None:
    del data[at : at + random.choice((1, 2, 4, 64))]


def _double(data: bytearray, at: int, random: Random) -> None:
    data[at:at] = data[at : at + random.choice((1, 4, 64, 1024))]


def _noise(data: bytearray, at: int, random: Random) -> None:
    data[at : at + 16] = random.randbytes(16)


def _zeros(data: bytearray, at: int, random: Random) -> None:
    data[at:] = bytes(len(data) - at)  # a copy that had reserved the length and stopped


_BYTE_CHANGES: tuple[Callable[[bytearray, int, Random], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _number,
    _number,
    _cut,
    _remove,
    _double,
    _noise,
    _zeros,
)


def changed_json(value: Any, random: Random, hostile: list[Any]) -> Any:
    """A JSON value with one thing inside replaced by a hostile one, taken away, added or doubled."""
    if not isinstance(value, (dict, list)) or not value or random.random() < 0.1:
        return random.choice(hostile)
    if isinstance(value, list):
        at = random.randrange(len(value))
        way = random.choice(("inside", "inside", "inside", "remove", "double"))
        middle = (
            []
            if way == "remove"
            else [value[at]] * 2
            if way == "double"
            else [changed_json(value[at], random, hostile)]
        )
        return [*value[:at], *middle, *value[at + 1 :]]
    name = random.choice(list(value))
    way = random.choice(("inside", "inside", "inside", "inside", "remove", "add"))
    if way == "remove":
        return {key: inside for key, inside in value.items() if key != name}
    if way == "add":
        return {**value, str(random.choice(hostile))[:100]: random.choice(hostile)}
    return {**value, name: changed_json(value[name], random, hostile)}


def json_bytes(value: Any) -> bytes:
    """JSON as Python writes it, NaN and all."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def changed_text(text: str, random: Random, hostile: list[str]) -> bytes:
    """A text with a field, a line or a few bytes changed."""
    lines = text.split("\n")
    at, way = (
        random.randrange(len(lines)),
        random.choice(("field", "field", "field", "line", "double", "remove", "bytes")),
    )
    if way == "bytes":
        return changed_bytes(text.encode(), random)
    if way == "field":
        fields = lines[at].split(",")
        fields[random.randrange(len(fields))] = random.choice(hostile)
        lines[at] = ",".join(fields)
    elif way == "line":
        lines[at] = random.choice(hostile)
    elif way == "double":
        lines.insert(at, lines[at])
    else:
        del lines[at]
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def changed_tensors(part: bytes, random: Random, hostile: list[Any]) -> bytes:
    """A safetensors file with its header or its bytes changed."""
    if random.random() < 0.3:
        return changed_bytes(part, random)
    length = int.from_bytes(part[:8], "little")
    header, data = json.loads(part[8 : 8 + length]), part[8 + length :]
    if random.random() < 0.4:  # numbers of the same length: no header tells
        start = random.randrange(max(1, len(data)))
        values = struct.pack("<f", random.choice((float("nan"), float("inf"), -1e38, 0.0, 1e38)))
        data = data[:start] + values * min(random.choice((1, 64)), (len(data) - start) // 4) + data[start:]
        data = data[: len(part) - 8 - length]
    else:
        header = changed_json(header, random, hostile)
    said = json_bytes(header)
    claimed = random.choice(HOSTILE_NUMBERS) if random.random() < 0.1 else len(said)
    return claimed.to_bytes(8, "little", signed=claimed < 0) + said + data


def zipped(parts: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of named parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def redigested(parts: Mapping[str, bytes], manifest: Any, free: tuple[str, ...]) -> dict[str, bytes]:
    """The parts of an inspector with every digest made right, as a person who means harm would make them.

    Args:
        parts: without the manifest.
        manifest: as it was or changed; its digests are replaced where it is an object.
        free: parts that have no digest.
    """
    if isinstance(manifest, dict) and isinstance(manifest.get("sha256", {}), dict):
        digests = {name: hashlib.sha256(part).hexdigest() for name, part in parts.items() if name not in free}
        manifest = {**manifest, "sha256": digests}
    described = json_bytes(manifest)
    line = f"{hashlib.sha256(described).hexdigest()}  manifest.json\n".encode()
    return {"manifest.json": described, "manifest.sha256": line, **parts}


def changed_zip(data: bytes, parts: Mapping[str, bytes], random: Random) -> bytes:
    """A zip that is wrong as a zip: its bytes, its names, its sizes, its compression."""
    way = random.choice(
        ("bytes", "directory", "directory", "sizes", "many", "twice", "name", "compressed", "bomb", "after")
    )
    if way == "directory":  # in the last two kilobytes stands what the zip says of its parts
        return data[:-2048] + changed_bytes(data[-2048:], random)
    if way == "sizes":
        at = data.rfind(b"PK\x01\x02", 0, len(data) - random.randrange(1, 1200))
        changed = bytearray(data)
        changed[at + 20 : at + 28] = struct.pack("<II", *(random.choice(HOSTILE_NUMBERS) % 2**32 for _ in range(2)))
        return bytes(changed)
    if way == "many":
        return _listed_often(data, random.choice((2, 30, 60_000)))
    if way == "twice":
        with io.BytesIO() as buffer:
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, part in [*parts.items(), random.choice(list(parts.items()))]:
                    archive.writestr(name, part)
            return buffer.getvalue()
    if way == "name":
        return zipped({**parts, random.choice(NAMES): b"{}"})
    if way == "compressed":
        return zipped(parts, compression=random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    if way == "bomb":
        return zipped({**parts, random.choice(list(parts)): bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED)
    return data + random.randbytes(random.choice((1, 22, 70_000))) if way == "after" else changed_bytes(data, random)


def _listed_often(data: bytes, times: int) -> bytes:
    """A zip whose directory lists its first part many times: read part by part it is many times as long."""
    end = data.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack("<HII", data[end + 10 : end + 20])
    first = data.find(b"PK\x01\x02", start + 4)
    entry = data[start : first if 0 < first < end else end]
    times = min(times, 0xFFFF - count)
    numbers = struct.pack("<HHII", count + times, count + times, size + times * len(entry), start)
    return data[:start] + entry * times + data[start:end] + data[end : end + 8] + numbers + data[end + 20 :]
