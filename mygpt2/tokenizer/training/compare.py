"""How well tokenizers compress: bytes of text per token, on several kinds of text, beside GPT-2's."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from mygpt2.tokenizer.base import Tokenizer

ARTICLE = {  # the first article of the Universal Declaration of Human Rights, which every script has
    "Latin, accents": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison "
        "et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité."
    ),
    "Cyrillic": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и "
        "совестью и должны поступать в отношении друг друга в духе братства."
    ),
    "Greek": (
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
        "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα "
        "αδελφοσύνης."
    ),
    "Arabic": (
        "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم بعضا "
        "بروح الإخاء."
    ),
    "Devanagari": (
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें "
        "बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।"
    ),
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Japanese": (
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良"
        "心とを授けられており、互いに同胞の精神をもって行動しなければならない。"
    ),
    "Korean": (
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 "
        "양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다."
    ),
}


@dataclass(frozen=True)
class Row:
    """One kind of text: its size, and for each tokenizer its tokens."""

    kind: str
    bytes: int
    tokens: tuple[int, ...]


def kinds(prose: Sequence[str], modules: Sequence[ModuleType]) -> dict[str, list[str]]:
    """Texts of each kind: prose as given, the source code of modules, and what is made here."""
    dice = random.Random(0)
    numbers = [
        " ".join(f"{dice.uniform(-1, 1) * 10 ** dice.randrange(8):.{dice.randrange(5)}f}" for _ in range(400)),
        "\n".join(
            f"{dice.randrange(1900, 2030)}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}" for _ in range(200)
        ),
        " ".join(str(dice.getrandbits(dice.randrange(4, 64))) for _ in range(200)),
    ]
    space = ["".join(" " * dice.randrange(0, 40) + dice.choice(["x", "}", "|", "\t", ""]) + "\n" for _ in range(500))]
    return {
        "English prose": list(prose),
        "Python code": [inspect.getsource(module) for module in modules],
        "numbers": numbers,
        "white space": space,
        **{script: [text] for script, text in ARTICLE.items()},
    }


def compare(tokenizers: Sequence[Tokenizer], texts: dict[str, list[str]]) -> list[Row]:
    """A row for each kind of text that has any."""
    rows = []
    for kind, found in texts.items():
        if size := sum(len(text.encode()) for text in found):
            counts = tuple(sum(len(ids) for ids in tokenizer.encode_batch(found)) for tokenizer in tokenizers)
            rows.append(Row(kind, size, counts))
    return rows
