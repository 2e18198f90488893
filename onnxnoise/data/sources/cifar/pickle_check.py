"""Walks a pickle's instructions before anything is built of it, and refuses one whose values would be too many or too deep."""

from __future__ import annotations

import pickletools
from collections.abc import Sequence

MOST_INSTRUCTIONS = 400_000
"""The largest part, CIFAR-100's 50,000 training images with their file names, takes about 200,000."""

MOST_LEVELS = 16
"""Values inside each other: a batch with its arrays has 5."""

_STORE = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_LOAD = frozenset(("GET", "BINGET", "LONG_BINGET"))
_GROW = frozenset(("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"))
_EMPTY = frozenset(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT"))
"""Instructions that make a value without parts which may get some."""

_MARK = pickletools.markobject


class _Value:
    """A value that the pickle would build: its levels, the number of values in it with itself, and whether another has it."""

    __slots__ = ("inside", "levels", "size")

    def __init__(self) -> None:
        self.levels, self.size, self.inside = 1, 1, False

    def take(self, parts: Sequence[_Value | None], most: int) -> None:
        """Put values into this one; raises ValueError where they are too many or too deep, or this one may not change."""
        if self is _ATOM or self.inside:
            raise ValueError("it puts values into a number or a text, or into a value that is inside another one")
        for part in parts:
            if part is None:
                raise ValueError("a mark stands where a value should")
            if part is self:
                raise ValueError("it puts a value inside itself")
            self.levels, self.size, part.inside = max(self.levels, part.levels + 1), self.size + part.size, True
        if self.levels > MOST_LEVELS:
            raise ValueError(f"its values lie more than {MOST_LEVELS} levels inside each other")
        if self.size > most:
            raise ValueError(f"it would hold over {most:,} values, more than it has bytes")


_ATOM = _Value()


def check_pickle(content: bytes) -> None:
    """Raise ValueError for a pickle that is damaged, or would take more memory or nesting than a batch of images does.

    A value that is used many times counts each time, since whoever reads it meets it so often. One that is inside another may not
    grow any more: a list could hold itself. Raises IndexError or KeyError where the pickle takes what is not there.
    """
    most = len(content) + 1000
    stack: list[_Value | None] = []  # None is a mark
    memo: dict[int, _Value | None] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if number >= MOST_INSTRUCTIONS:
            raise ValueError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
        name, before = opcode.name, opcode.stack_before
        if name in _STORE:
            index = len(memo) if name == "MEMOIZE" else int(str(argument))
            if index > len(content):  # the C unpickler fills a list up to any index: 2 ** 31 takes all of the memory
                raise ValueError(f"it stores a value at index {index}")
            memo[index] = stack[-1]
        elif name in _LOAD:
            stack.append(memo[int(str(argument))])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            parts = _since_mark(stack) if _MARK in before else []
            parts += [stack.pop() for _ in before[: before.index(_MARK) if _MARK in before else None]]
            if name in _GROW:
                whole = parts.pop()
                if whole is None:
                    raise ValueError("a mark stands where a value should")
                whole.take(parts, most)
                stack.append(whole)
            elif opcode.stack_after == [_MARK]:
                stack.append(None)
            elif opcode.stack_after:
                made = _Value() if parts or name in _EMPTY else _ATOM
                if parts:
                    made.take(parts, most)
                stack.append(made)


def _since_mark(stack: list[_Value | None]) -> list[_Value | None]:
    """Take what lies above the last mark off the stack, and the mark."""
    parts: list[_Value | None] = []
    while (part := stack.pop()) is not None:
        parts.append(part)
    return parts
