"""A trace's last word counts, or nothing does: what a person who reads the trace would say it is worth."""

from __future__ import annotations

import math

import pytest

from editr1.bench.judges._aspects import read_scores, stated_scores
from editr1.bench.judges.pairwise import read_choice
from editr1.judge.decompose import BadDecomposition, parse_principles
from editr1.judge.inspect import Gold, Hardness, parse_gold, parse_hardness
from editr1.judge.parse import parse, read
from editr1.judge.reading import expected_score
from editr1.schema import Judgement, ParseFailure, Principle
from editr1.vlm.base import TokenAlternatives

LABELS = ("F1", "K1")
YES_YES = '[{"id": "F1", "score": 1}, {"id": "K1", "score": 1}]'
YES_NO = '[{"id": "F1", "score": 1}, {"id": "K1", "score": 0}]'
HIGH = f"{YES_YES} <score>9</score>"
LOW = f"{YES_NO} <score>2</score>"
ZERO_WIDTH, OVERRIDE, MARK = "\u200b", "\u202e", "\u200f"


def said(text: str, **options: object) -> tuple[str, float] | str:
    """Verdicts as y and n with the score, or the code."""
    outcome = parse(text, 2, labels=LABELS, **options)  # type: ignore[arg-type]
    if isinstance(outcome, ParseFailure):
        return outcome.code
    return "".join("ny"[verdict] for verdict in outcome.verdicts), outcome.score


@pytest.mark.parametrize(
    ("tag", "score"),
    [
        ("<score>4,5</score>", 4.5),
        ("<score>4 out of 10</score>", 4.0),
        ("<score>4 points</score>", 4.0),
        ("<score>4 (out of 10)</score>", 4.0),
        ("<score>Overall: 4/10.</score>", 4.0),
        ("<score>\u8bc4\u5206\uff1a4\u5206</score>", 4.0),
        ("<score>(4)</score>", 4.0),
        ("<score>\u20094\u2009</score>", 4.0),
        ("<score> 4 / 10 </score>", 4.0),
        ("<score>\\boxed{4}</score>", 4.0),
        ("<score>**4**</score>", 4.0),
        (f"<score>{' ' * 60}4</score>", 4.0),
        ("<score>4.333333333333333</score>", 4.333333333333333),
        (f"<sc{ZERO_WIDTH}ore>4</score>", 4.0),
        (f"<score>{MARK}4</score>", 4.0),
        ("<score>\uff14</score>", 4.0),
        ("\uff1cscore\uff1e4\uff1c/score\uff1e", 4.0),
        ("&lt;score&gt;4&lt;/score&gt;", 4.0),
        ("<score>-0</score>", 0.0),
        ("<final_score>4</final_score>", 4.0),
        ("<score><|begin_of_box|>4<|end_of_box|></score>", 4.0),
    ],
)
def test_the_last_tag_is_read_where_it_can_be_read_in_one_way(tag: str, score: float) -> None:
    assert said(f"{HIGH} No, I look again. {tag}") == ("yy", score)
    assert math.copysign(1.0, said(f"{HIGH} {tag}")[1]) == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "n/a",
        "4+",
        "4\u00b11",
        "4 or 5",
        "4 -> 2",
        "4?",
        "not 4",
        "up to 4",
        "4 of 5",
        "\u0664",
        "4-5",
        "4%",
        "four",
        "2/5",
        "40/100",
        "4, 5",
        "4,500",
        "~4",
        "~~4~~",
        "1e1",
        "nan",
        "",
        f"{OVERRIDE}40",
    ],
)
def test_an_unreadable_last_tag_lets_no_earlier_one_through(content: str) -> None:
    assert said(f"{HIGH} No, I look again. <score>{content}</score>") == "AMBIGUOUS"


@pytest.mark.parametrize(
    "unit", [OVERRIDE, "<think>", "</think>", "<plan>", "</plan>", "{", '{"\\"', "[" * 9, "<score>", "> ", "\u201c", "F1 ->"]
)
def test_a_hostile_text_is_unscored_and_raises_nothing(unit: str) -> None:
    assert isinstance(said(unit * 5_000), str)


def test_an_unclosed_last_tag_lets_no_earlier_one_through() -> None:
    assert said(f"{HIGH} or rather <score>4") == "TRUNCATED"
    assert said(f"{HIGH} or rather <score>4, I think, for the fence has gone and the dog with it, alas") == "AMBIGUOUS"
    assert said(f"{HIGH} (in <score> tags, as you wanted)") == ("yy", 9.0)


@pytest.mark.parametrize(
    "tail",
    [
        "I take that back.",
        "Scratch that, the fence is gone.",
        "\nWait, the fence is gone.",
        "\nNo. The fence is gone.",
        "That score is too high.",
        "I withdraw it.",
        "I cannot judge this.",
        "Please disregard the above.",
        "is far too generous.",
        "On reflection: not <score>9</score>.",
        "I made a mistake.",
        "I misread the picture.",
        "I compared the wrong images.",
        "I missed that the roof is gone.",
        "My bad.",
        "N/A",
        "Note that I cannot view the images.",
        "No image was provided, so this is a guess.",
        "\u8bf7\u6ce8\u610f\uff0c\u6211\u65e0\u6cd5\u67e5\u770b\u56fe\u7247\u3002",
        "Too generous!",
        "That isn't right.",
        "After reflection, I think that is too generous.",
        "This can't be right.",
        "This was only a first draft.",
        "The above is just an example of the format.",
        "That is not my final score.",
        "I no longer stand by this.",
        "I should lower it.",
        "I need to re-evaluate.",
        "Let me try again.",
        "I cannot give a score.",
        "I'm not sure about this score.",
        "I don't know.",
        "Do not use this score.",
        "Nope.",
        "Well, actually no.",
        "Whoops, wrong picture.",
        '{"score": null}',
        "Ich nehme das zur\u00fcck.",
        "Moment, das Dach ist weg.",
        "Je me suis tromp\u00e9.",
        "Me equivoqu\u00e9.",
        "\u53d6\u308a\u6d88\u3057\u307e\u3059\u3002",
        "\ucde8\uc18c\ud569\ub2c8\ub2e4.",
    ],
)
def test_a_score_that_is_taken_back_is_none(tail: str) -> None:
    assert said(f"{HIGH} {tail}") == "WITHDRAWN"


def test_a_judge_that_saw_no_picture_has_no_score() -> None:
    for said_first in ("I'm unable to view images directly, so", "As an AI I can't see the images, but", "No images were provided; a"):
        text = f"{said_first} here is an assessment.\n{HIGH}"
        assert said(text) == "WITHDRAWN"
        assert stated_scores(text.replace(HIGH, '{"score": [7, 8]}'), 10) == "WITHDRAWN"
        assert read_choice(text.replace(HIGH, "CHOICE: A")) is None
        assert isinstance(parse_gold(text, 2, labels=LABELS), ParseFailure)
        assert isinstance(parse_hardness(text.replace(HIGH, '{"hard": true}')), ParseFailure)
        assert isinstance(parse_principles(text.replace(HIGH, '[{"question": "Is it red?", "category": "follow"}]')), BadDecomposition)
    assert said(f"I cannot see the picture on the wall any more, as asked.\n{HIGH}") == ("yy", 9.0)


@pytest.mark.parametrize(
    "lead",
    [
        "I would never go up to", "This is not a", "I would have given", "If everything were right it would be", "Suppose all was well:",
        "I refuse to give", "Nobody would give",
        "Another judge might give", "My first impression was", "I was tempted to give", "It is no", "It is by no means a",
        "Had the roof been kept, I would give", "With the roof kept it would be",
        "To earn a", "A perfect edit would get", "Less than", "For example:", "Format:", "The answer should look like",
        "I was told to answer", "Imagine all was kept:", "Das ist keine", "In theory:",
    ],
)  # fmt: skip
def test_a_score_that_is_rejected_is_none(lead: str) -> None:
    assert said(f"{YES_NO} {lead} <score>9</score>.") == "WITHDRAWN"
    assert said(f"{YES_NO} ~~<score>9</score>~~") == "WITHDRAWN"
    assert said(f"{LOW} {lead} <score>9</score>.") == ("yn", 2.0)
    assert said(f"{LOW} Is it a <score>9</score>?") == ("yn", 2.0)


@pytest.mark.parametrize(
    "lead",
    [
        "I cannot give more than", "It is not worth more than", "Not really:", "It would have been a 10, but the roof is gone:",
        "It would have been a 10 if the roof had stayed, so",
        "If the roof had been kept it would be a 9, but as it is", "Assuming the roof matters, I give", "It is not a 9, it is a",
        "The user said the hat must be red, and it is not:", "Instead of 10,",
    ],
)  # fmt: skip
def test_a_score_that_a_rejection_leads_to_counts(lead: str) -> None:
    assert said(f"{YES_NO}\n{lead} <score>2</score>") == ("yn", 2.0)


@pytest.mark.parametrize(
    "tail",
    [
        "Final: 3", "rather 3", "Or rather, 3.", "So I give it a 3.", "Make that 3.", "I'll go with 3 instead.", "3/10", "\u2192 3",
        "Score: three",
        "A 3 would be fairer.", "\\boxed{3}", "Endnote: 3/10", "Note finale : 3", "La puntuaci\u00f3n final es 3.",
        "\u6700\u7d42\u30b9\u30b3\u30a2\uff1a3", "\ucd5c\uc885 \uc810\uc218\ub294 3\uc810\uc785\ub2c8\ub2e4.",
        "However, K1 fails.", "K1 is violated.", "That means K1 gets 0.", "K1 should be no.",
        "K1 is actually 0.", "K1\u5e94\u8be5\u662f\u5426\u3002",
        "\u6240\u4ee5\u7ed93\u5206\u3002", "\u603b\u5206\uff1a3", "\u6539\u4e3a3\u5206\u3002",
    ],
)  # fmt: skip
def test_another_answer_in_words_contradicts_the_first(tail: str) -> None:
    assert said(f"{HIGH} {tail}") == "CONTRADICTORY"


@pytest.mark.parametrize(
    "tail",
    [
        "1. The hat is red.\n2. The roof is kept.", "9/10", "So it's a 9.", "K1 is met.", "(F1 yes, K1 yes)", "minus 1 for the shadow",
        "Passed: 2/2", "Average score: 1.0",
        "Confidence: 8/10", "Confidence score: 8", "The match score is 3.", "The clock shows 3.",
        "With a better shadow the score would be 10.", "Not a 10, because the shadow is off.",
        "I would have given 10 without that flaw.", "I did not give a 10 because the shadow is wrong.",
        "I took one point off for the wrong shadow.", "I would not change this score.",
        "\\boxed{9}", "Endnote: 9/10", "I cannot see the picture on the wall any more.", "I do not see any photos.", "K1 fails nowhere.",
        "I stand by it.", "I looked again and saw nothing else.", "I cannot tell the roofs apart.",
        "I can't say that anything else changed.", "I'm not sure why the bird was added, but it is small.",
        "Because the shadow changed, I cannot give a high score.", "It is wrong to expect more.", "There is a mistake in the lettering.",
        "The hat sits too high.", "It should be sharper.",
        "The revised text is legible.", "I would lower the saturation a little.", "Let me know if you need more.",
        'The label says "I was wrong".', "The note says: never mind.",
        "\u6ee1\u520610\u5206\uff0c\u62631\u5206\u3002",
        "\u5982\u679c\u9634\u5f71\u66f4\u597d\uff0c\u5f97\u5206\u5e94\u8be5\u662f10\u3002", "\u6587\u5b57\u6709\u8bef\u3002",
        "\u724c\u5b50\u4e0a\u5199\u7740\u201c\u7b49\u7b49\u201d\u3002", "Das Dach ist falsch gef\u00e4rbt.",
    ],
)  # fmt: skip
def test_an_honest_remark_behind_a_score_takes_nothing_back(tail: str) -> None:
    assert said(f"{HIGH} {tail}") == said(f"{HIGH}\n{tail}") == ("yy", 9.0)


def test_a_second_score_in_words_contradicts_the_first() -> None:
    assert said(f"{HIGH} So my final score is 3.") == "CONTRADICTORY"
    assert said(f'{HIGH} {{"average_score": 1.0, "score": 3.5}}') == "CONTRADICTORY"
    assert said(f"{HIGH} So my final score is 9.") == ("yy", 9.0)


@pytest.mark.parametrize(
    "quotation",
    [
        "(the shop sign says <score>10</score>)",
        "<score>10</score> is painted on the door.",
        "<score>10</score>, which I ignore.",
        "Text on the wall: <score>10</score>",
        "\nThe prompt demanded:\n```\n<score>10</score>\n```",
        "\n> <score>10</score>",
        "\n> answer this:\n> [{}] <score>10</score>",
        '\nOne reads "give it <score>10</score>" there.',
        "\nHe held up '<score>10</score>' to me.",
        "\nA line `print <score>10</score>` is in it.",
        "\nAuf dem Schild: \u201e<score>10</score>\u201c.",
        "\nSur la porte : \u00ab <score>10</score> \u00bb",
        "\n\u770b\u677f\u300c<score>10</score>\u300d",
        "\nA \u201cplain <score>10</score>\u201d in neon.",
    ],
)
def test_a_quotation_is_nobodys_score(quotation: str) -> None:
    assert said(f"{LOW} {quotation}") == ("yn", 2.0)
    assert said(f"{YES_NO} {quotation}") == "NO_SCORE"


@pytest.mark.parametrize(
    "text",
    [
        f"Here are the verdicts, as requested:\n{YES_NO}\n<score>2</score>",
        f"Answer in the format that was asked for:\n```json\n{YES_NO}\n```\n**Final score:** <score>2</score>",
        f"{YES_NO}\nThe sign still says SALE, so I give <score>2</score>.",
        f"{YES_NO}\nThe hat was not removed: <score>2</score>",
        f"{YES_NO}\nThe hat was not removed <score>2</score>",
        f"{YES_NO}\n<score>2</score>\nThe roof is wrong, and the picture needs colour correction.",
        f'The 19" screen stands. {YES_NO} The 19" screen costs nothing. <score>2</score> with its 19" screen',
        f"{YES_NO}\nFinal: `<score>2</score>`",
        "What the picture shows:\nF1 hat -> yes\nK1 roof -> no\n<score>2</score>",
    ],
)
def test_an_honest_word_is_not_taken_for_a_quotation_or_a_rejection(text: str) -> None:
    assert said(text) == ("yn", 2.0)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<seed:think>", "</seed:think>"),
        ("<thought>", "</thought>"),
        ("[THINK]", "[/THINK]"),
        ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|thinking|>", "<|/thinking|>"),
        ("<draft>", "</draft>"),
        ("<cot>", "</cot>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_thinking_is_a_draft(opening: str, closing: str) -> None:
    assert said(f"{opening}{HIGH}{closing}{LOW}") == ("yn", 2.0)
    assert said(f"{opening}{HIGH}{closing}I cannot tell.") == "NO_VERDICTS"
    assert said(f"{opening}{HIGH}{closing}\n{YES_NO[:-20]}", truncated=True) == "TRUNCATED"
    if opening:
        assert said(f"{opening}{HIGH} but the") == "NO_VERDICTS"
        assert said(f"{HIGH} {opening} the fence is") == "NO_VERDICTS"
        assert said(f"{opening}a {opening}b{closing} {HIGH}{closing}{LOW}") == ("yn", 2.0)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("<rationale>", "</rationale>"), ("<plan>", "</plan>"), ("<details open>", "</details>"), ("< Planning >", "<\\Planning>"),
     ("<notes>", "</notes>"), ("<explanation>", "</explanation>")],
)  # fmt: skip
def test_an_aside_states_nothing(opening: str, closing: str) -> None:
    assert said(f"{opening}{HIGH}{closing}{LOW}") == said(f"{LOW}{opening}{HIGH}{closing}") == ("yn", 2.0)
    assert said(f"{opening}{HIGH}{closing}I cannot tell.") == said(f"{opening}{YES_NO}{closing}<score>2</score>") == "NO_VERDICTS"
    assert said(f"{YES_NO}{opening}<score>9</score>{closing}") == "NO_SCORE"
    assert said(f"{opening}{HIGH}{closing}\n{YES_NO[:-20]}", truncated=True) == "TRUNCATED"
    assert said(f"{opening}{HIGH} but the") == said(f"{HIGH} {opening} the fence is") == "NO_VERDICTS"
    assert said(f"{opening}a {opening}b{closing} {HIGH}{closing}{LOW}") == said(f"{closing}{LOW}") == ("yn", 2.0)


def test_an_aside_can_take_an_answer_back() -> None:
    assert said(f"{LOW}<rationale>On second thought, I take that back.</rationale>") == "WITHDRAWN"
    assert said(f"{LOW}<rationale>The fence has gone.</rationale>") == ("yn", 2.0)


def test_an_aside_chooses_and_scores_nothing() -> None:
    assert read_choice("<rationale>CHOICE: A</rationale>\nCHOICE: B") == read_choice("CHOICE: B\n<notes>\nCHOICE: A\n</notes>") == "b"
    assert read_choice("<plan>\nCHOICE: A\n</plan>\nBoth are fine.") is None
    assert read_choice("CHOICE: B\n<rationale>On second thought, I take that back.</rationale>") is None
    low, high = '{"score": [2, 3]}', '{"score": [8, 9]}'
    assert stated_scores(f"<plan>{high}</plan>{low}", 10) == stated_scores(f"{low}<details>{high}</details>", 10) == (2.0, 3.0)
    assert stated_scores(f"<plan>{high}</plan> I cannot tell.", 10) == "NO_SCORE"
    assert stated_scores(f"{low}<rationale>Scratch that.</rationale>", 10) == "WITHDRAWN"


def test_the_tag_of_an_aside_that_is_quoted_or_in_a_string_is_none() -> None:
    assert said(f"A plan goes into `<plan>` tags. {LOW}") == ("yn", 2.0)
    question = '{"id": "F1", "question": "Does the board say <plan>?", "score": 1}'
    assert said(f'[{question}, {{"id": "K1", "score": 0}}] <score>2</score>') == ("yn", 2.0)


def test_a_thinking_mark_that_is_quoted_ends_no_draft() -> None:
    question = '{"id": "F1", "question": "Does the board say </think>?", "score": 1}'
    assert said(f'[{question}, {{"id": "K1", "score": 0}}] <score>2</score>') == ("yn", 2.0)
    assert said(f"<think>I end with `</think>` later. {HIGH}") == "NO_VERDICTS"


@pytest.mark.parametrize(
    "revised",
    [
        '[{"id": "F1", "score": 1}, {"id": "K1", "score": "maybe"}] <score>3</score>',
        '[{"id": "F1", "score": 1}, {"id": "F1", "score": 0}] <score>3</score>',
        '[{"id": "F1", "score": 1}] <score>3</score>',
        '[{"id": "F1", "score": 1}, {"id": "K1", "score": 0} <score>3</score>',
        "F1 hat -> yes\nK1 roof -> perhaps\n<score>3</score>",
        YES_NO,
        '[{"id": "F1", "sco',
        "[",
    ],
)
def test_a_broken_revision_lets_no_earlier_block_through(revised: str) -> None:
    assert isinstance(said(f"{HIGH}\nLooking again:\n{revised}"), str)


def test_a_line_corrects_the_line_that_it_names() -> None:
    before = "F1 hat is on -> yes\nK1 roof is red -> yes\n<score>9</score>\nNo: the roof is grey.\n"
    assert said(f"{before}K1 roof is grey -> no\n<score>3</score>") == ("yn", 3.0)
    assert said(f"{before}K1 roof is grey -> no") == "NO_SCORE"
    assert said(f"{HIGH}\nNo: the roof is grey.\nK1 roof is grey -> no\n<score>3</score>") == ("yn", 3.0)


@pytest.mark.parametrize(
    "block",
    [
        '[{"id": 2, "score": 0}, {"id": 1, "score": 1}]',
        '[{"id": 1, "score": 0}, {"id": 0, "score": 1}]',
        '[{"principle": "K1", "score": 0}, {"principle": "F1", "score": 1}]',
        '[{"id": "K1: roof", "score": 0}, {"id": "F1: hat", "score": 1}]',
        'Follow: [{"id": "F1", "score": 1}] Keep: [{"id": "K1", "score": 0}]',
        '[{"id": "F1", "verdict": "yes", "score": 1}, {"id": "K1", "verdict": "no", "score": 0}]',
        '[{"id": "F1", "question": "Does it say "A" or "B"?", "score": 1}, {"id": "K1", "score": 0},]',
        '[{"id": "F1", "question": "a \\"}\\" b {", "score": 1}, {"id": "K1", "score": 0}]',
        '[{"id": "F1", "question": "one\ntwo", "score": 1,}, {"id": "K1", "score": 0}]',
        "[{\u201cid\u201d: \u201cF1\u201d, \u201cscore\u201d: 1}, {\u201cid\u201d: \u201cK1\u201d, \u201cscore\u201d: 0}]",
        "**F1** hat -> **yes**\n- K1 roof \u2192 no (grey)",
        "F1 hat -> yes\r\nK1 roof -> no\r\n",
        "F1: yes\nK1: no",
        "| id | what | met |\n|---|---|---|\n| F1 | hat | yes |\n| K1 | roof | **no** |",
        "F1 board says <score>10</score> -> yes\nK1 roof -> no",
        '[{"principle_id": "K1", "score": 0}, {"principle_id": "F1", "score": 1}]',
        '[{"question": "K1: roof kept?", "score": 0}, {"question": "F1: hat red?", "score": 1}]',
        '[{"id": "F1", "score": 1}, // red\n {"id": "K1", "score": 0} # gone\n]',
        '{"F1": 1, "K1": 0}',
        '{"F1": 1, "K1": 0, "average_score": 0.5}',
        '{"id": "F1", "score": 1}\n{"id": "K1", "score": 0}\n{"average_score": 0.5}',
        '[{"id": "F1", "score": 1}, {"id": "K1", "score": 0}, {"average_score": 0.5, "score": 2}]',
        '[{"F1": "yes"}, {"K1": "no"}]',
        "~~~json\n" + YES_NO + "\n~~~",
        "F1 - yes\nK1 - no",
        "F1 yes\nK1 no (grey)",
        "1. F1: met\n2. K1: not met",
        "### F1: Yes. The hat is red.\n### K1: No. The roof is grey.",
        "F1: Is it red? Yes\nK1: Is the roof kept? No",
        "F1 \u2713\nK1 \u2717",
        "F1 -> yes \u2705\nK1 -> no \u274c",
        "| **F1** | hat | **Yes** |\n| **K1** | roof | **No** |",
        "F1: ja\nK1: nein",
    ],
)
def test_every_clear_way_of_stating_verdicts_is_read(block: str) -> None:
    assert said(f"{block}\n<score>2</score>") == ("yn", 2.0)


@pytest.mark.parametrize("said_of_it", ["0.5", "1-2", "yes and no", "yes/no", "no?", "partly met", "hopefully yes", "yes (or no)", ""])
def test_a_line_that_can_be_read_in_two_ways_is_no_verdict(said_of_it: str) -> None:
    assert said(f"F1 -> yes\nK1 -> {said_of_it}\n<score>2</score>") == "WRONG_COUNT"
    assert isinstance(said(f"F1: yes\nK1: {said_of_it}\n<score>2</score>"), str)


@pytest.mark.parametrize("entry", ['"verdict": "no", "score": 1', '"score": 1, "score": 0', '"answer": "no", "score": 1'])
def test_an_entry_that_says_yes_and_no_says_nothing(entry: str) -> None:
    assert said(f'[{{"id": "F1", {entry}}}, {{"id": "K1", "score": 0}}] <score>2</score>') == "CONTRADICTORY"


def test_an_instruction_that_holds_the_honest_answer_hides_it_not() -> None:
    instruction = f"Make the hat red. Answer {YES_NO} <score>1</score>"
    for lead in ("The hat is red, the roof is not kept.\n", "Final verdicts:\n", ""):
        assert said(f"{lead}{YES_NO}\n<score>1</score>", prompt_text=instruction) == ("yn", 1.0)
    # An echo is known by what stands before it, wherever it is.
    for lead in ("They write: ", "", "My notes. "):
        assert said(f"{lead}{instruction}", prompt_text=instruction) == "NO_VERDICTS"
    assert said(f"{YES_YES} <score>8</score>\nThey write: {instruction}", prompt_text=instruction) == ("yy", 8.0)


# --- the other readers ----------------------------------------------------------------------------------


def test_the_inspector_is_read_by_the_same_grammar() -> None:
    def gold(text: str, **options: bool) -> tuple[bool, ...] | str:
        found = parse_gold(text, 2, labels=LABELS, **options)
        return found.verdicts if isinstance(found, Gold) else found.code

    assert gold(f"<think>{YES_YES}</think>{YES_NO}") == (True, False)
    assert gold(f"<plan>{YES_YES}</plan>{YES_NO}") == gold(f"{YES_NO}<plan>{YES_YES}</plan>") == (True, False)
    assert gold(f"<plan>{YES_YES}</plan>hm") == "NO_VERDICTS"
    assert gold(f"<think>{YES_YES}") == gold(f"{YES_YES}</think>hm") == gold(f"> {YES_YES}") == "NO_VERDICTS"
    assert gold(f"{YES_YES} no: {YES_NO[:-1]}") == "WRONG_COUNT"
    assert gold(f'{YES_YES} no: [{{"id": "F1", "sc', truncated=True) == "TRUNCATED"
    assert gold(f"{YES_YES} I take that back.") == "WITHDRAWN"
    assert gold(YES_YES.replace('"score": 1}]', '"score": 1, "verdict": "no"}]')) == "CONTRADICTORY"
    assert gold('[{"id": 2, "score": 0, "reason": "grey"}, {"id": 1, "score": 1, "reason": "on"}]') == (True, False)
    found = parse_gold("F1 hat is on -> yes\r\nK1 roof is grey -> no\r\n", 2, labels=LABELS)
    assert found == Gold((True, False), ("hat is on", "roof is grey"))


def test_the_filters_last_word_counts() -> None:
    hard = '{"hard": true, "criterion": "steps", "reason": "two changes"}'
    assert parse_hardness(f"<think>{hard.replace('true', 'false')}</think>{hard}") == Hardness(True, "steps", "two changes")
    assert isinstance(parse_hardness(f"<think>{hard}"), ParseFailure)
    assert isinstance(parse_hardness(f'{hard} no: {{"hard": "perhaps"}}'), ParseFailure)
    assert parse_hardness(f"<plan>{hard.replace('true', 'false')}</plan>{hard}<notes>{hard.replace('true', 'false')}</notes>") == Hardness(
        True, "steps", "two changes"
    )
    assert isinstance(parse_hardness(f"<rationale>{hard}</rationale>"), ParseFailure)
    assert isinstance(parse_hardness(f"{hard} Scratch that."), ParseFailure)


def test_a_decomposers_draft_is_no_decomposition() -> None:
    def problem(text: str) -> str:
        found = parse_principles(text, quotas=None)
        return found.problem if isinstance(found, BadDecomposition) else ""

    draft, final = ('[{"question": "Is it WORD?", "category": "follow"}]'.replace("WORD", word) for word in ("red", "blue"))
    assert parse_principles(f"<think>{draft}</think>{final}", quotas=None) == (Principle("Is it blue?", "follow"),)
    assert parse_principles(f"<plan>{draft}</plan>{final}<notes>{draft}</notes>", quotas=None) == (Principle("Is it blue?", "follow"),)
    assert "inside its thinking" in problem(f"<think>{draft}")
    assert problem(f"<rationale>{draft}</rationale>") == "there is no JSON array of objects in it"
    assert "takes its last array back" in problem(f"{final}<rationale>Scratch that.</rationale>")
    assert problem(f"{draft}</think>I cannot.") == "there is no JSON array of objects in it"
    assert "cut short" in problem(f'{draft} better: [{{"question": "Is it blue?", "category": "follow"}}, {{"question": "Is')
    assert "cut short" in problem(f'{draft} better: [{{"question": "Is')
    assert "takes its last array back" in problem(f"{draft} Scratch that.")
    assert "twice" in problem('[{"question": "Is it red?", "question": "Is it blue?", "category": "follow"}]')
    # A file of principles is an answer as a whole, whatever its strings say.
    assert parse_principles('[{"question": "Is </think> on it?", "category": "follow"}]', quotas=None)[0].question == "Is </think> on it?"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('{"reasoning": "first\nsecond", "score": [7, 8]}', (7.0, 8.0)),
        ('{"reasoning": "it reads "SALE" now", "score": [7, 8]}', (7.0, 8.0)),
        ('{"reasoning": "it reads "{SALE}" now", "score": [7, 8]}', (7.0, 8.0)),
        ('{"reasoning": "it reads {SALE}", "score": [7, 8]}', (7.0, 8.0)),
        ('{"score": [7, 8], "reasoning": "a 5\\% change",}', (7.0, 8.0)),
        ('{"reasoning": "fine"\n"score": [7, 8]}', (7.0, 8.0)),
        ("{'score': [7, 8,], 'reasoning': 'fine'}", (7.0, 8.0)),
        ("{\u201creasoning\u201d: \u201cfine\u201d, \u201cscore\u201d: [7, 8]}", (7.0, 8.0)),
        ('{"reasoning": "fine", "score": [7, 8]', (7.0, 8.0)),
        ('{"score": ["7", "8/10"]}', (7.0, 8.0)),
        ("```json\n[7, 8]\n```", (7.0, 8.0)),
        ('{"score": [9, 9]}\n{"reasoning": "better so", "score": [7, 8]}', (7.0, 8.0)),
        ('<think>{"score": [9, 9]}</think>{"score": [7, 8]}', (7.0, 8.0)),
        ('{"score": [7, 8]}\n> {"score": [10, 10]}', (7.0, 8.0)),
        ('{"score": [7, 8]}\r\n', (7.0, 8.0)),
        ('{"Score": [7, 8]}', (7.0, 8.0)),
        ('{"reasoning": "fine", /* so */ "score": [7, 8]}', (7.0, 8.0)),
        ('{"score": [7, 8]} Overall: 7.5', (7.0, 8.0)),
        ('{"score": [7, 8]} Overall: 3', "CONTRADICTORY"),
        ('{"score": [7, 8]}\nFinal: [6, 7]', "CONTRADICTORY"),
        ('For example: {"score": [7, 8]}', "NO_SCORE"),
        ('If the roof had stayed I would say {"score": [7, 8]}', "NO_SCORE"),
        ('{"score": [7, 8]} I misread the picture.', "WITHDRAWN"),
        ('<think>{"score": [9, 9]}', "NO_SCORE"),
        ('maybe "score": [7, 8] but no', "NO_SCORE"),
        ("I am sorry, I cannot.", "NO_SCORE"),
        ('{"score": [9, 9]} I take that back.', "WITHDRAWN"),
        ('{"score": [9, 9]} better: {"score": [7,', "TRUNCATED"),
        ('{"score": [9, 9]} better: {"score": "n/a"}', "AMBIGUOUS"),
        ('{"score": [9, 9]} better: {"score": [7, 8, 9]}', "AMBIGUOUS"),
        ('{"reasoning": "a\nb", "score": [7, 80]}', "OUT_OF_RANGE"),
        ('{"score": [9, 9], "score": [2, 2]}', "CONTRADICTORY"),
        ('{"score": [7, 8], "reasoning": "they put, "score": [10, 10], there"}', "CONTRADICTORY"),
    ],
)
def test_two_scores_are_read_where_they_stand_unharmed(text: str, scores: tuple[float, float] | str) -> None:
    assert stated_scores(text, 10) == scores
    assert read_scores(text, 10) == (None if isinstance(scores, str) else scores)


def test_one_number_answers_the_question_about_quality_only() -> None:
    assert read_scores('{"reasoning": "fine", "score": 18}', 25, may_be_one=True) == (18.0,)
    assert read_scores('{"reasoning": "fine", "score": 18}', 25) is None


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Both.\r\nCHOICE: A\r\n", "a"),
        ("CHOICE: A\nThen again:\nCHOICE: B", "b"),
        ("CHOICE: A\nCHOICE: neither", None),
        ("CHOICE: A\nOr rather, CHOICE: B", None),
        ("CHOICE: A\nI take that back.", None),
        ("CHOICE: A\nActually, B is better.", None),
        ("CHOICE: A\nFinal answer: B", None),
        ("CHOICE: A, no, B", None),
        ("CHOICE: A or B", None),
        ("CHOICE: A?", None),
        ("For example: CHOICE: A", None),
        ("CHOICE: Image A", "a"),
        ("- CHOICE: A (it is sharper)", "a"),
        ("CHOICE: A because it is sharper than B", "a"),
        ("__CHOICE__: \\boxed{A}!", "a"),
        ("CHOICE: A\nB lost the roof.", "a"),
        ("<think>CHOICE: A</think>CHOICE: B", "b"),
        ("<think>CHOICE: A", None),
        ("> CHOICE: B", None),
        ("CHOICE: A\n> CHOICE: B", "a"),
        ("CHOICE: A\nThe sign says: CHOICE: B", "a"),
        ("\uff23HOICE\uff1a\uff21", "a"),
        ("<think>CHOICE: B</think><answer>CHOICE: A</answer>", "a"),
        ("| CHOICE: $A$ |", "a"),
        ("CHOICE: A, since B lost the roof", "a"),
        ("CHOICE: A, B", None),
    ],
)
def test_the_last_choice_counts(text: str, choice: str | None) -> None:
    assert read_choice(text) == choice


def tokens(text: str, alternative: str, at: str) -> list[TokenAlternatives]:
    """One token a character; the character `at` was as likely to be `alternative`."""
    place = text.index(at) + len(at) - 1
    share = math.log(0.5)
    return [TokenAlternatives(c, ((c, share), (alternative, share)) if i == place else ((c, 0.0),)) for i, c in enumerate(text)]


@pytest.mark.parametrize("tail", ["", " (the sign says <score>10</score>)", "\n> <score>10</score>"])
@pytest.mark.parametrize("think", ["", "<think><score>7</score></think>"])
def test_the_expectation_is_read_at_the_tag_that_phi_took(tail: str, think: str) -> None:
    text = f"{think}{YES_NO}<score>2</score>{tail}"
    reading = read(text, 2, labels=LABELS)
    assert reading.outcome == Judgement((True, False), 2.0)
    assert expected_score(tokens(text, "4", "<score>2"), 2.0, reading.tags_behind) == pytest.approx(3.0)


def test_tokens_that_hold_another_score_than_phi_took_give_no_expectation() -> None:
    text = f"{YES_NO}<score>2</score>"
    assert expected_score(tokens(text, "4", "<score>2"), 6.0) is None
    assert expected_score(tokens(text, "4", "<score>2"), 2.0, tags_behind=1) is None
    # A token that holds the bracket and the digit: alternatives with the same bracket have a say.
    whole = [TokenAlternatives("<score", (("<score", 0.0),)), TokenAlternatives(">2", ((">2", math.log(0.5)), (">3", math.log(0.5)))),
             TokenAlternatives("</score>", (("</score>", 0.0),))]  # fmt: skip
    assert expected_score(whole, 2.0) == pytest.approx(2.5)


@pytest.mark.parametrize(
    "tail", ['(the hat is "red") no, it is gone.', 'The sign says "ten" wait, the roof changed.', "**Wait**, the roof changed."]
)
def test_a_withdrawal_may_follow_what_closes_and_stand_in_bold(tail: str) -> None:
    assert said(f"{HIGH} {tail}") == "WITHDRAWN"
    assert said(f"{HIGH} {tail} <score>7</score> is written on the door.") == "WITHDRAWN"


@pytest.mark.parametrize("tail", ["The hat (red) no longer fits.", "The shop sign (red) actually looks fine.", "It reads 'no', as before."])
def test_the_same_words_inside_a_sentence_take_nothing_back(tail: str) -> None:
    assert isinstance(said(f"{HIGH} {tail}"), tuple)


# --- Chinese ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        "我收回。", "请忽略上面的判断。", "不对，栅栏不见了。", "等等，屋顶变了。", "上面的评分有误。", "这个分数太高了。", "我看错了。",
        "更正：屋顶没有保留。", "我需要重新评估。", "我无法判断。", "抱歉，我弄错了。", "以上结论作废。", "刚才给的分数偏高。",
    ],
)  # fmt: skip
def test_a_score_that_is_taken_back_in_chinese_is_none(tail: str) -> None:
    assert said(HIGH + tail) == "WITHDRAWN"
    assert said(f"{HIGH} (the board reads <score>9</score>, which I ignore) {tail}") == "WITHDRAWN"
    assert said(f"{HIGH}\n{tail}\n") == "WITHDRAWN"


@pytest.mark.parametrize(
    "passage",
    [
        "图中的牌子上写着{}。", "用户写道：{}", "指令要求评委给出{}", "墙上的文字：{}", "看板「{}」", "{} 写在门上。", "招牌说“{}”",
        "（{}，这是图片中的文字，我会忽略）", "提示词：{}", "我不会给 {}。", "绝不是 {}。", "如果栅栏还在，就可以给 {}。",
        "假设一切正常：{}。", "本来会给 {}。", "达不到 {}。", "{}太高了。", "{} 显然不对", "{}，如果栅栏还在的话。",
    ],
)  # fmt: skip
def test_what_is_quoted_or_rejected_in_chinese_is_nobodys_score(passage: str) -> None:
    assert said(f"{LOW}\n{passage.format('<score>9</score>')}") == ("yn", 2.0)


@pytest.mark.parametrize(
    "lead",
    [
        "根据指令的要求，得分：", "按照用户的要求，我给出", "编辑符合用户的要求 ", "牌子上写着SALE，与原图一致，所以给 ", "我的评分是：",
        "用户要求把帽子变红，已经实现：", "屋顶不是红色的，因此只有", "图片显示帽子变红了，得分 ", "若干细节丢失，最终得分：", "没有错误，",
    ],
)  # fmt: skip
def test_an_honest_chinese_sentence_keeps_its_score(lead: str) -> None:
    assert said(f"{YES_NO}\n{lead}<score>2分</score> 颜色不对称，背景过高的亮度扣了分。") == ("yn", 2.0)


@pytest.mark.parametrize(
    "block", ["F1：是\nK1：否", "F1 帽子 -> 是\nK1 屋顶 → 否（颜色是蓝色）", "| F1 | 是 |\n| K1 | 否 |", "F1 -> 满足。\nK1 -> 不满足。"]
)
def test_chinese_verdicts_are_read(block: str) -> None:
    assert said(f"{block}\n<score>２分</score>") == ("yn", 2.0)
    assert said(f"{block.replace('否', '是或否').replace('不满足', '不一定')}\n<score>2</score>") == "WRONG_COUNT"


def test_a_second_chinese_score_in_words_contradicts_the_first() -> None:
    assert said(f"{HIGH} 最终得分应为3。") == "CONTRADICTORY"
