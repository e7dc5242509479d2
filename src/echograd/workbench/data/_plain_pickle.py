"""A safe reader of pickles of plain data: containers, numbers, strings and numeric NumPy arrays.

A pickle is a program, and the standard unpickler executes it. Restricting it to NumPy arrays is not enough: a pickle
can make an array of objects from raw bytes. This module decodes the opcodes of plain data and calls nothing that the
file names. It compares every size with the bytes in the file before it allocates memory.
"""

import codecs
import dataclasses
import math
import re
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ._errors import DataError

_OPCODES = 200_000  # a subject of PPG-DaLiA has a few hundred
_NESTING = 1_000
_LONG_STRING = 1 << 12  # byte strings from this length on are views into the file and are not copied
_KINDS = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}
_MARK = object()


class PickleError(DataError):
    """A file is not a pickle of plain data, or is truncated."""


@dataclasses.dataclass
class _Name:
    """The name of a function or class in a pickle."""

    text: str


@dataclasses.dataclass
class _Type:
    """A NumPy dtype: kind and size, and its byte order, which follows in a second step."""

    code: str
    order: str = "="


@dataclasses.dataclass(eq=False)
class _Array:
    """A NumPy array; its contents may follow in a second step."""

    values: np.ndarray | None = None


def load(content: bytes) -> Any:
    """Read a pickle of protocol 0 to 5, of Python 2 or 3.

    Args:
        content: the bytes of the file.

    Returns:
        Dictionaries, lists, tuples, numbers, strings, bytes, and arrays for `as_numbers`. Keys that Python 2 wrote as
        bytes are strings. Arrays and long byte strings are views into `content`.

    Raises:
        PickleError: the file holds anything else, or is damaged.
    """
    try:
        return _Reader(content).run()
    except IndexError:
        raise PickleError("a value is missing") from None


class _Reader:
    """The state of the decoder: a position, a stack of values, and a memo of values that may be recalled."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._view = memoryview(content)
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0  # bytes of encoded strings; the file size limits them
        self._marks = 0

    def run(self) -> Any:
        """Decode all opcodes and return the value."""
        for _ in range(_OPCODES):
            opcode = self._bytes(1)
            if opcode == b".":
                if len(self._stack) != 1:
                    raise PickleError(f"it ends with {len(self._stack)} values, not with one")
                return self._stack[0]
            step = _STEPS.get(bytes(opcode))
            if step is None:
                raise PickleError(f"opcode {bytes(opcode)!r} is not one of plain data")
            step(self)
        raise PickleError(f"it has more than {_OPCODES} opcodes")

    # The file

    def _bytes(self, size: int) -> bytes | memoryview:
        end = self._at + size
        if end > len(self._content):
            raise PickleError(f"it announces {size} bytes at byte {self._at}, but has only {len(self._content)} in all")
        found = self._view[self._at : end]
        self._at = end
        return found if size >= _LONG_STRING else bytes(found)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _line(self) -> bytes:
        end = self._content.find(b"\n", self._at)
        if end < 0:
            raise PickleError(f"it ends within a line that begins at byte {self._at}")
        line = self._content[self._at : end]
        self._at = end + 1
        return line

    # The stack

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise PickleError("a value is missing")
        return value

    def mark(self) -> None:
        self._marks += 1
        if self._marks > _NESTING:
            raise PickleError(f"containers are nested more than {_NESTING} deep")
        self._stack.append(_MARK)

    def since_mark(self) -> list[Any]:
        """Pop the values since the last mark, and the mark."""
        values = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        self._marks -= 1
        return values[::-1]

    def text(self, size: str) -> None:
        self.push(_decoded(self._bytes(self._number(size)), "utf-8"))

    def binary(self, size: str) -> None:
        length = self._number(size)
        if length < 0:
            raise PickleError(f"a string has {length} bytes")
        self.push(self._bytes(length))

    def number(self, form: str) -> None:
        self.push(self._number(form))

    def long(self) -> None:
        self.push(int.from_bytes(self._bytes(self._number("<B")), "little", signed=True))

    def int_line(self) -> None:
        line = self._line()
        self.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else _int(line))

    def long_line(self) -> None:
        self.push(_int(self._line().removesuffix(b"L")))

    def float_line(self) -> None:
        line = self._line()
        if not re.fullmatch(rb"-?([0-9]{1,40}(\.[0-9]{0,40})?(e[-+]?[0-9]{1,4})?|inf)|nan", line):
            raise PickleError("a number is damaged")
        self.push(float(line))

    def string_line(self) -> None:
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PickleError("a string is not quoted")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # invalid escapes
                self.push(codecs.escape_decode(line[1:-1])[0])
        except (ValueError, Warning):
            raise PickleError("a string is damaged") from None

    def text_line(self) -> None:
        self.push(_decoded(self._line(), "raw-unicode-escape"))

    def name_lines(self) -> None:
        self._named(_decoded(self._line(), "utf-8"), _decoded(self._line(), "utf-8"))

    def name_of_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self._named(module, name)

    def _named(self, module: Any, name: Any) -> None:
        # NumPy 2 and Python 3 renamed modules.
        full = f"{module}.{name}"[:200].replace("numpy._core", "numpy.core").replace("__builtin__", "builtins")
        if full not in _CALLS and full != "numpy.ndarray":
            raise PickleError(f"it names {full}, but only numpy arrays and plain containers are supported")
        self.push(_Name(full))

    def make_list(self) -> None:
        self.push(self.since_mark())

    def make_tuple(self, size: int | None = None) -> None:
        self.push(tuple(self.since_mark() if size is None else [self.pop() for _ in range(size)][::-1]))

    def make_dict(self) -> None:
        items, made = self.since_mark(), {}
        _update(made, items)
        self.push(made)

    def append(self) -> None:
        self._extend([self.pop()])

    def appends(self) -> None:
        self._extend(self.since_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise PickleError("it appends to a value that is not a list")
        self._stack[-1].extend(values)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        _update(self._stack[-1], [key, value])

    def set_items(self) -> None:
        items = self.since_mark()
        _update(self._stack[-1], items)

    def remember(self, index: int | None = None) -> None:
        index = len(self._memo) if index is None else index
        if self._stack[-1] is _MARK:
            raise PickleError("it remembers a mark")
        self._memo[index] = self._stack[-1]

    def recall(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError(f"it recalls value {index}, which was not stored")
        self.push(self._memo[index])

    def put(self, form: str) -> None:
        self.remember(self._number(form))

    def get(self, form: str) -> None:
        self.recall(self._number(form))

    def put_line(self) -> None:
        self.remember(_int(self._line()))

    def get_line(self) -> None:
        self.recall(_int(self._line()))

    def skip(self, size: int) -> None:
        self._bytes(size)

    # NumPy

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or function.text not in _CALLS or not isinstance(arguments, tuple):
            raise PickleError("it calls a function, but only numpy arrays and plain containers are supported")
        self.push(_CALLS[function.text](self, *arguments[:5]))

    def build(self) -> None:
        state, target = self.pop(), self._stack[-1]
        if isinstance(target, _Type) and isinstance(state, tuple) and len(state) in (8, 9):
            _, order, subarray, names, fields, _, _, flags = state[:8]
            order = _short_text(order)
            if any(part is not None for part in (subarray, names, fields, *state[8:])) or flags != 0:
                raise PickleError(f"an array of dtype {target.code!r} has fields or objects instead of numbers")
            if order not in ("<", ">", "|", "="):
                raise PickleError("a dtype has no byte order")
            target.order = order
        elif isinstance(target, _Array) and target.values is None and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, data = state
            target.values = self.array(data, dtype, shape, "F" if fortran is True or fortran == 1 else "C").values
        else:
            raise PickleError(
                "it sets the state of an object, but only numpy arrays and plain containers are supported"
            )

    def array(
        self, data: Any = None, dtype: Any = None, shape: Any = None, order: Any = "C", axes: Any = None
    ) -> _Array:
        """Return a view of bytes as an array; raise unless shape and dtype take exactly these bytes."""
        numpy_type = _numpy_type(dtype)
        sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 1 << 40 for size in shape)
        if not sizes or len(shape) > 32:
            raise PickleError("the shape of an array is not a tuple of sizes")
        if isinstance(data, str):
            data = self.encode(data)
        if not isinstance(data, bytes | memoryview):
            raise PickleError("an array has no data")
        wanted = math.prod(shape) * numpy_type.itemsize
        if len(data) != wanted:
            raise PickleError(f"an array of shape {str(shape)[:60]} takes {wanted} bytes, but has {len(data)}")
        values = np.frombuffer(data, numpy_type) if wanted else np.empty(0, numpy_type)
        order = _short_text(order)
        try:
            if order == "K":
                return _Array(values.reshape(shape).transpose(axes))
            return _Array(values.reshape(shape, order="F" if order == "F" else "C"))
        except (ValueError, TypeError, OverflowError) as error:
            raise PickleError(f"the shape of an array is wrong ({error})") from None

    def encode(self, text: Any = None, encoding: Any = "latin1", *_: Any) -> bytes:
        """Return bytes that protocols below 3 write as text."""
        if not isinstance(text, str) or _short_text(encoding) not in ("latin1", "latin-1"):
            raise PickleError("it encodes a value that is not text in latin-1")
        self._encoded += len(text)
        if self._encoded > len(self._content):
            raise PickleError("it encodes more bytes than the file has")
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:
            raise PickleError("it encodes a value that is not text in latin-1") from None

    def scalar(self, dtype: Any = None, data: Any = None, *_: Any) -> Any:
        return self.array(data, dtype, (1,)).values.item()  # pyright: ignore[reportOptionalMemberAccess]

    def new_array(self, *_: Any) -> _Array:
        return _Array()

    def new_type(self, code: Any = None, *_: Any) -> _Type:
        return _Type(_short_text(code))

    def new_bytes(self, *arguments: Any) -> bytes:
        return self.encode(*arguments[:2]) if arguments else b""


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _Reader.new_type,
    "numpy.core.multiarray._reconstruct": _Reader.new_array,
    "numpy.core.multiarray.scalar": _Reader.scalar,
    "numpy.core.numeric._frombuffer": _Reader.array,
    "_codecs.encode": _Reader.encode,
    "builtins.bytes": _Reader.new_bytes,
    "builtins.bytearray": _Reader.new_bytes,
}

_STEPS: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": lambda r: r.skip(1),  # the protocol
    b"\x95": lambda r: r.skip(8),  # the length of a frame
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"I": _Reader.int_line,
    b"L": _Reader.long_line,
    b"F": _Reader.float_line,
    b"J": lambda r: r.number("<i"),
    b"K": lambda r: r.number("<B"),
    b"M": lambda r: r.number("<H"),
    b"\x8a": _Reader.long,
    b"G": lambda r: r.number(">d"),
    b"S": _Reader.string_line,
    b"T": lambda r: r.binary("<i"),
    b"U": lambda r: r.binary("<B"),
    b"B": lambda r: r.binary("<I"),
    b"C": lambda r: r.binary("<B"),
    b"\x8e": lambda r: r.binary("<Q"),
    b"\x96": lambda r: r.binary("<Q"),
    b"V": _Reader.text_line,
    b"X": lambda r: r.text("<I"),
    b"\x8c": lambda r: r.text("<B"),
    b"\x8d": lambda r: r.text("<Q"),
    b"(": _Reader.mark,
    b"]": lambda r: r.push([]),
    b"}": lambda r: r.push({}),
    b")": lambda r: r.push(()),
    b"l": _Reader.make_list,
    b"t": _Reader.make_tuple,
    b"\x85": lambda r: r.make_tuple(1),
    b"\x86": lambda r: r.make_tuple(2),
    b"\x87": lambda r: r.make_tuple(3),
    b"d": _Reader.make_dict,
    b"a": _Reader.append,
    b"e": _Reader.appends,
    b"s": _Reader.set_item,
    b"u": _Reader.set_items,
    b"p": _Reader.put_line,
    b"q": lambda r: r.put("<B"),
    b"r": lambda r: r.put("<I"),
    b"\x94": lambda r: r.remember(),
    b"g": _Reader.get_line,
    b"h": lambda r: r.get("<B"),
    b"j": lambda r: r.get("<I"),
    b"c": _Reader.name_lines,
    b"\x93": _Reader.name_of_stack,
    b"R": _Reader.reduce,
    b"b": _Reader.build,
}


def _update(target: Any, items: list[Any]) -> None:
    """Put alternating keys and values into a dictionary. Keys must be text or numbers, whose hash is cheap."""
    if not isinstance(target, dict) or len(items) % 2:
        raise PickleError("it sets an item of a value that is not a dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        key = _short_text(key) if isinstance(key, bytes) else key
        if not isinstance(key, str | int | float):
            raise PickleError("a key is neither text nor a number")
        target[key] = value


def as_numbers(value: Any, what: str) -> np.ndarray:
    """Return an array of a pickle, or a list of numbers as an array.

    Raises:
        PickleError: the value is something else.
    """
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return np.array(value, dtype=np.float64)
    raise PickleError(f"{what} is neither an array nor a list of numbers")


def _numpy_type(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Type):
        raise PickleError("an array has no dtype")
    kind, size = dtype.code[:1], dtype.code[1:]
    if size not in map(str, _KINDS.get(kind, ())):
        raise PickleError(f"an array has dtype {dtype.code!r}, which is not numeric")
    return np.dtype(dtype.order.replace("|", "=") + dtype.code)


def _short_text(value: Any) -> str:
    """Return a short string. Python 2 wrote these as bytes."""
    if isinstance(value, bytes) and len(value) <= 200:
        return value.decode("latin-1")
    if isinstance(value, str) and len(value) <= 200:
        return value
    raise PickleError("a name, key or code is not a short text")


def _decoded(data: bytes | memoryview, encoding: str) -> str:
    try:
        return str(data, encoding)
    except UnicodeDecodeError:
        raise PickleError("a text is damaged") from None


def _int(text: bytes) -> int:
    if not re.fullmatch(rb"-?[0-9]{1,30}", text):
        raise PickleError("a number is damaged")
    return int(text)
