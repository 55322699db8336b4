"""Blocks of code between the fences of Markdown (``` or ~~~)."""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

_MARK = re.compile(r"`{3,}|~{3,}")


class _Fence(NamedTuple):
    """A line that opens a block: where its mark stands, the mark, the language behind it."""

    place: int
    mark: str
    language: str


def blocks(answer: str, languages: Collection[str]) -> list[str]:
    """Return the blocks of an answer, blank ones aside, that are in one of the languages.

    Every block ends at a fence of its own, whatever its language, or with the answer.

    Args:
        answer: Of the model.
        languages: In small letters; "" is a fence that names none.
    """
    return [text for language, text in _blocks(answer) if language in languages and text.strip()]


def _blocks(answer: str) -> Iterator[tuple[str, str]]:
    """Yield every block's language and text."""
    fence, lines = None, list[str]()
    for line in answer.replace("\r\n", "\n").split("\n"):
        if fence is None:
            fence, lines = _opening(line), []
        elif _closes(line, fence):
            lines.append(line.rstrip().removesuffix(fence.mark))
            yield fence.language, "\n".join(lines)
            fence = None
        else:
            lines.append(line)
    if fence is not None:
        yield fence.language, "\n".join(lines).partition(fence.mark)[0]


def _opening(line: str) -> _Fence | None:
    """Return the fence that a line opens, after words too: "Here it is: ```python"."""
    found = _MARK.search(line)
    if found is None:
        return None
    before, words = line[: found.start()].strip(), line[found.end() :].split()
    language = words[0].lower() if words else ""
    if "`" in line[found.end() :] or (before and (len(words) > 1 or not f"a{language}".isalnum())):
        return None
    return _Fence(found.start(), found[0], language)


def _closes(line: str, fence: _Fence) -> bool:
    """Whether a line closes a fence: alone, or behind the last line of the code.

    A mark further to the right, or a pair of them, is part of the code: in its comments.
    """
    line = line.rstrip()
    alone = line.lstrip()
    if alone.strip(fence.mark[0]):
        return line.endswith(fence.mark) and line.count(fence.mark) % 2 == 1
    return len(alone) >= len(fence.mark) and len(line) - len(alone) <= fence.place + 3
