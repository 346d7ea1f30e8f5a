"""Read the values that PyTables pickled into HDF5 attributes, without unpickling.

Lists, tuples, dicts and None in PYME's metadata are pickles of protocol 0. This reads the few opcodes that literals
need: numbers, text, None, booleans, lists, tuples and dicts. Anything that would import or call is refused.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Final

from cluster.errors import Invalid

_MAX_BYTES: Final = 1 << 20
_MAX_OPCODES: Final = 200_000
_MARK: Final = object()


def loads(pickled: bytes) -> Any:
    """Return the literal that a protocol 0 pickle holds.

    Raises
    ------
    Invalid
        If it holds anything but numbers, text, None, lists, tuples and dicts of these, or is not a pickle.
    """
    if len(pickled) > _MAX_BYTES:
        raise Invalid("a pickled value is too long to be metadata")
    try:
        value = _Machine(pickled).run()
        _refuse_expansion(value)
    except (IndexError, KeyError, TypeError, ValueError, SyntaxError, RecursionError) as error:
        raise Invalid("a pickled value is not a plain literal") from error
    return value


def _refuse_expansion(value: Any) -> None:
    """A memo can make a few bytes mean a value without end: bound what it would be, written out."""
    left, waiting = _MAX_OPCODES, [value]
    while waiting:
        left -= 1
        if left < 0 or len(waiting) > _MAX_OPCODES:
            raise ValueError("the value is without end")
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())


class _Machine:
    """The pickle machine, cut down to literals."""

    def __init__(self, pickled: bytes) -> None:
        self._text = pickled
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[bytes, Any] = {}

    def run(self) -> Any:
        for _ in range(_MAX_OPCODES):
            opcode = self._text[self._at : self._at + 1]
            self._at += 1
            if opcode == b".":
                return self._finish()
            _OPCODES[opcode](self)
        raise ValueError("too many opcodes")

    def _finish(self) -> Any:
        if len(self._stack) != 1 or self._text[self._at :].strip(b"\0"):
            raise ValueError("more than one value")
        return self.pop()

    def line(self) -> bytes:
        end = self._text.index(b"\n", self._at)
        line = self._text[self._at : end]
        self._at = end + 1
        return line

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_to_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        values = self._stack[at + 1 :]
        del self._stack[at:]
        return values

    def top(self, kind: type) -> Any:
        value = self._stack[-1]
        if type(value) is not kind:
            raise TypeError("the wrong container")
        return value

    def put(self) -> None:
        name, value = self.line(), self.pop()
        self.push(value)
        self._memo[name] = value

    def get(self) -> None:
        self.push(self._memo[self.line()])


def _integer(machine: _Machine) -> None:
    line = machine.line()
    machine.push(line == b"01" if line in {b"00", b"01"} else int(line))


def _long(machine: _Machine) -> None:
    machine.push(int(machine.line().rstrip(b"L")))


def _string(machine: _Machine) -> None:
    quoted = machine.line()
    if quoted[:1] not in {b"'", b'"'} or quoted[-1:] != quoted[:1]:
        raise ValueError("an unquoted string")
    text = ast.literal_eval("b" + quoted.decode("ascii"))
    machine.push(text.decode("utf-8", "replace"))


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _append_all(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.top(list).extend(values)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.top(dict)[key] = value


def _set_all(machine: _Machine) -> None:
    values = machine.pop_to_mark()
    machine.top(dict).update(_pairs(values))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


_OPCODES: Final[dict[bytes, Callable[[_Machine], None]]] = {
    b"(": lambda m: m.push(_MARK),
    b"l": lambda m: m.push(m.pop_to_mark()),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"d": lambda m: m.push(_pairs(m.pop_to_mark())),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"}": lambda m: m.push({}),
    b"p": lambda m: m.put(),
    b"g": lambda m: m.get(),
    b"a": _append,
    b"e": _append_all,
    b"s": _set_item,
    b"u": _set_all,
    b"N": lambda m: m.push(None),
    b"I": _integer,
    b"L": _long,
    b"F": lambda m: m.push(float(m.line())),
    b"S": _string,
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
}
