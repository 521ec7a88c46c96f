"""Byte-pair learning by its definition, slowly: what the merges of the real trainer are compared with."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import regex

from mygpt2.tokenizer.base import printable_bytes

Pair = tuple[int, int]


def learn(texts: list[str], pattern: str, merges: int) -> list[tuple[str, str]]:
    """The first `merges` merges: the most frequent pair of ids each time; of equals the lowest, by first then second.

    Every count is made anew from the pieces in which the pair was; no shortcut besides.
    """
    alphabet = printable_bytes()
    words = [*alphabet]
    id_of_byte = {byte: number for number, byte in enumerate(alphabet.values())}
    counts = Counter(piece for text in texts for piece in regex.findall(pattern, text))
    pieces = [[id_of_byte[b] for b in piece.encode()] for piece in counts]
    weights = [*counts.values()]
    total: Counter[Pair] = Counter()
    where: dict[Pair, set[int]] = {}
    for number, piece in enumerate(pieces):
        _count(number, piece, weights[number], total, where)
    found = []
    while len(found) < merges:
        most = max(total.values(), default=0)
        if most == 0:
            break
        best = min(pair for pair, count in total.items() if count == most)
        found.append((words[best[0]], words[best[1]]))
        words.append(words[best[0]] + words[best[1]])
        for number in sorted(where[best]):
            _count(number, pieces[number], -weights[number], total, where)
            pieces[number] = _joined(pieces[number], best, len(words) - 1)
            _count(number, pieces[number], weights[number], total, where)
    return found


def _count(number: int, piece: list[int], weight: int, total: Counter[Pair], where: dict[Pair, set[int]]) -> None:
    for pair in pairwise(piece):
        total[pair] += weight
        if weight > 0:
            where.setdefault(pair, set()).add(number)
        elif total[pair] == 0:
            del total[pair]


def _joined(piece: list[int], pair: Pair, new: int) -> list[int]:
    out: list[int] = []
    place = 0
    while place < len(piece):
        if tuple(piece[place : place + 2]) == pair:
            out.append(new)
            place += 2
        else:
            out.append(piece[place])
            place += 1
    return out
