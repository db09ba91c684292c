"""Traces whose worth is known, made of acts: the judge judges, corrects itself, takes back, rejects, quotes, thinks, breaks off.

For `phi_fuzz.py`; the truth of an act is what a person who reads the trace to its end would say.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

Truth = tuple[tuple[bool, ...], float] | None
RETRACTIONS = (
    "I take that back.",
    "Scratch that, the fence is gone.",
    "\nWait, the fence is gone.",
    "\nNo. I was looking at the source.",
    "That score is too high.",
    "I withdraw all of it: I withdraw my answer.",
    "\nOn reflection, I cannot judge this.",
    "Please ignore the above.",
    "My mistake.",
    "我收回刚才的评分。",
    "不对，栅栏不见了。",
    "\n等等，栅栏不见了。",
    "这个分数太高了。",
    "请忽略以上判断。",
    "我看错了。",
    "我无法判断。",
    "让我重新评估。",
)
REJECTIONS = (
    "I would never go as far as {}.",
    "It is not a {}.",
    "I would have given {} had the fence stayed.",
    "Suppose all were well: {}.",
    "我不会给 {}。",
    "绝不是 {}。",
    "如果栅栏还在，我会给 {}。",
    "假设一切正常：{}。",
    "本来可以打 {}。",
)
QUOTATIONS = (
    "(the board in the picture reads {}, which I ignore)",
    "\n> they answered: {}\n",
    "\nThe user wrote: {}\n",
    "\nThe sign says \u201c{}\u201d.\n",
    "\nAuf dem Plakat: \u201e{}\u201c\n",
    "\nLe mur : \u00ab {} \u00bb\n",
    "\n\u770b\u677f\u300c{}\u300d\n",
    '\nA poster has "{}" on it.\n',
    "\nText on the wall: {}\n",
    "\nThe prompt demanded:\n```\n{}\n```\n",
    "{} is written on the door.",
    "\nA line `print {} now` is in it.\n",
    "\n牌子上写着{}\n",
    "\n用户写道：{}\n",
    "\n指令要求评委给出{}\n",
    "\n提示词：{}\n",
    "\n图中的文字是“{}”。\n",
    "\n招牌显示：{}\n",
    "（{}，这是图片中的文字，我会忽略）",
    "{} 写在门上。",
)
UNREADABLE = ("N/A", "1-2", "9%", "two", "1/5", "3 or 4", "八", "3到4分", "", "7, 8", "\u202e01\u202c", "~6", "6\u00bd")
PROSE = (
    "",
    "",
    "The hat is red now. ",
    "\nThe roof was not kept, and that costs most of it.\n",
    "\nThe text reads SALE as before.\n",
    "牌子上写着SALE，与原图一致。",
    "\n屋顶不是红色的，因此扣分。\n",
    "编辑符合用户的要求。",
    "\n",
)
BREAKS = (
    '[{{"id": "F1", "score": 1}}, {{"id": "K9", "sc',
    "[{{",
    "<score>{score}",
    '[{{"id": "F1", "score": "maybe"}}] <score>{score}</score>',
    "<think>hm",
)
SPELLINGS = ("{}", "{}分", " {} ", "**{}**", "{}/10", "{} out of 10", "\\boxed{{{}}}", "\u200b{}", "{}\u200f")


@dataclass
class Speech:
    """A trace in the making, and what it is worth so far."""

    rng: random.Random
    names: list[str]
    text: str = ""
    truth: Truth = None

    def number(self) -> float:
        return round(self.rng.uniform(0, 10), self.rng.randint(0, 2))

    def tag(self, score: float) -> str:
        spelled = f"{score:.2f}".rstrip("0").rstrip(".")
        if self.rng.random() < 0.1 and "." in spelled:
            spelled = spelled.replace(".", ",")
        if self.rng.random() < 0.1:
            spelled = spelled.translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789"})
        return f"<score>{self.rng.choice(SPELLINGS).format(spelled)}</score>"

    def block(self, verdicts: tuple[bool, ...]) -> str:
        style = self.rng.randrange(5)
        if style == 0:
            words = self.rng.choice((("no", "yes"), ("否", "是")))
            return "\n" + "\n".join(f"{name} seen -> {words[verdict]}" for name, verdict in zip(self.names, verdicts, strict=True)) + "\n"
        ids: list[object] = list(self.names) if style < 4 else list(range(1, len(self.names) + 1))
        rows: list[dict[str, object]] = [
            {"id": name, "question": 'Does it say "A {b}"?', "score": int(verdict)} for name, verdict in zip(ids, verdicts, strict=True)
        ]
        if style == 2:
            self.rng.shuffle(rows)
        array = json.dumps(rows)
        return {1: f"```json\n{array}\n```", 3: array.replace("}]", "},]")}.get(style, array)

    def judge(self) -> None:
        verdicts = tuple(self.rng.random() < 0.5 for _ in self.names)
        score = self.number()
        self.text += f"{self.block(verdicts)}{self.rng.choice(PROSE)}{self.tag(score)}{self.rng.choice(PROSE)}"
        self.truth = (verdicts, score)

    def correct(self) -> None:
        """One line and a new score, after a judgement that stands."""
        if self.truth is None:
            return
        verdicts, place, score = list(self.truth[0]), self.rng.randrange(len(self.names)), self.number()
        verdicts[place] = not verdicts[place]
        said = self.rng.choice(("No: I see it now.", "不对，我看清了。"))
        self.text += f"\n{said}\n{self.names[place]} seen -> {'yes' if verdicts[place] else 'no'}\n{self.tag(score)}\n"
        self.truth = (tuple(verdicts), score)

    def take_back(self) -> None:
        self.text += f" {self.rng.choice(RETRACTIONS)}\n"
        self.truth = None

    def reject(self) -> None:
        score = self.number()
        self.text += f" {self.rng.choice(REJECTIONS).format(self.tag(score))}\n"
        if self.truth is not None and self.truth[1] == score:
            self.truth = None

    def quote(self) -> None:
        whole = self.block(tuple(self.rng.random() < 0.5 for _ in self.names)).strip().replace("\n", " ") if self.rng.random() < 0.3 else ""
        form = self.rng.choice(QUOTATIONS)
        bare = form.strip().endswith(("写着{}", "给出{}"))
        whole = "" if whole and (bare or form.startswith(("{", "(", "（")) or '"' in form or "`" in form) else whole
        self.text += " " + form.format(f"{whole}{self.tag(self.number())}")

    def spoil(self) -> None:
        """A last tag that cannot be read, a contradiction or a second score in words."""
        kind = self.rng.randrange(3)
        if kind == 0:
            self.text += f" rather <score>{self.rng.choice(UNREADABLE)}</score>\n"
        elif kind == 1:
            rows = ", ".join(f'{{"id": "{name}", "verdict": "no", "score": 1}}' for name in self.names)
            self.text += f"\n[{rows}]{self.tag(self.number())}\n"
        else:
            other = self.number()
            self.text += f" So my final score is {other:g}.\n"
            if self.truth is not None and self.truth[1] == other:
                return
        self.truth = None

    def think(self) -> None:
        """All that was said so far was a draft."""
        opening, closing = self.rng.choice(
            (("<think>", "</think>"), ("", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"))
        )
        self.text = f"{opening}{self.text}{closing}\n"
        self.truth = None

    def break_off(self) -> None:
        self.text += " Again: " + self.rng.choice(BREAKS).format(score=self.number())
        self.truth = None


def speech(rng: random.Random, names: list[str]) -> tuple[str, Truth]:
    """A trace of up to six acts with what it is worth."""
    made = Speech(rng, names)
    acts = (made.judge, made.judge, made.judge, made.correct, made.take_back, made.reject, made.quote, made.quote, made.spoil)
    for _ in range(rng.randint(1, 6)):
        rng.choice(acts)()
    if rng.random() < 0.2:
        made.think()
        for _ in range(rng.randint(0, 3)):
            rng.choice(acts)()
    if rng.random() < 0.1:
        made.break_off()
    return (made.text.replace("\n", "\r\n") if rng.random() < 0.1 else made.text), made.truth
