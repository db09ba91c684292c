"""What follows a judgement and undoes it: the judge takes it back, calls it a draft or a mistake, or names another number in words.

English and Chinese, and the commonest words of German, French, Spanish, Japanese and Korean: a judge that was asked in English seldom
leaves it, and longer lists would refuse honest remarks. What a sign or a person in the picture says takes nothing back. ours: no source;
`benchmarks/phi_fuzz.py` counts what slips through.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from editr1.judge.claims import is_quoted

_SENTENCE = (
    "(?:^|[.!?\\n(]|[)\\]\"'\u201d\u300d\u300f](?=[ \\t\\n*_]))"  # where a sentence may begin; behind what closes, with a blank between
)
_STOP = r"[\s*_]*(?:[,.:;!)\u2026\u2014\u2013-]|$)"
_HESITATION = r"(?:(?:oh|but|and|or|so|well|okay|h+m+|u[hm]+|er+m?|ah+|no|wait|actually|oops|sorry)\b[ \t,.!:;\u2014\u2013-]*)"
_BEGIN = rf"(?:{_SENTENCE}|[\u2014\u2013]|-(?!>))[ \t*_-]*{_HESITATION}{{0,3}}"

# --- Chinese --------------------------------------------------------------------------------------------

_ZH_ITS_WORD = (
    "(?:上面|上述|以上|前面|之前|刚才|这个|这一|那个|该|此|我)(?:所?[说给]?的)?(?:那个|最终)?(?:[得评打]?分|分数|判断|答案|结论|回答|评价)?"
)
_ZH_FAULTS = "(?:是|都|也|显然|有点|完全|并)*+(?:有误|错误的|错[了的]|不对(?!称)|不准确|不正确|不成立|无效|作废|[太过偏][高低]|不算数?)"
_ZH_TAKEN_BACK = (
    "(?:收回|撤回|撤销|推翻|忽略|无视|忘掉|划掉)(?:掉|了)?(?:上面|上述|以上|前面|之前|刚才|这个|这一|该|我|评分|得分|分数|判断|结论|答案)",
    "我(?:要|想|得)?(?:收回|撤回)",
    f"{_ZH_ITS_WORD}{_ZH_FAULTS}",
    f"(?:得分|评分|分数|打分|判断|答案|结论|回答){_ZH_FAULTS}",
    "我(?:刚才|之前|可能)?(?:说|看|判断|打|算|搞|弄|理解|评)?错了|我的错|我(?:看|搞|弄|算)错|我不(?:太)?确定|我改(?:变)?主意",
    f"(?:{_SENTENCE}|,)[ \\t*_]*(?:更正|修正|纠正|勘误|订正)\\s*[:,.]",
    "重新(?:评估|评分|打分|评判|判断|考虑|审视)|(?:让我|我)(?:再|重新)(?:看|想|检查|考虑|评估|确认|数)|转念一想|再想想|仔细一想",
    f"(?:{_SENTENCE}|,)[ \\t*_]*(?:刚才|之前|可能|好像)?(?:说|看|打|搞|弄|算|评|判断)错了|[打给评]得?[太偏过]?[高低]了",
    f"(?:{_SENTENCE}|,)[ \\t*_]*我?(?:还|也)?(?:不能|无法|没法|不太?)确定(?=这|我|该|[.,!;\\n]|$)|拒绝(?:评分|打分|判断|评价)",
    "(?:这|以上|上面|上述|那)(?:些|个)?(?:都|也)?(?:只|仅|不过)?(?:是|为)一?个?(?:草稿|示例|例子|初稿|初步|猜测|占位|玩笑|随便)"
    "|(?:这|以上|上面|上述)(?:些|个)?(?:都|并|还)?不是(?:我的?)?(?:最终|真正)?的?(?:得分|评分|答案|判断|结论)|(?:不要|别|请勿)(?:采用|使用|采纳|计入|参考|当真)",
    "我?(?:实在|其实|还是|也)?(?:无法|没法|不能|没办法)(?:再)?(?:作出|做出|给出)?(?:判断|评分|打分|评估|评价|评判|分数)",
    f"(?:{_SENTENCE}|[—–-])[ \\t*_]*(?:哦|啊|但|嗯)?,?(?:等等|等一下|等下|稍等|慢着|且慢|不对|不|其实|抱歉|对不起|糟糕)"
    "[\\s*_]*(?:[,.:!…—–-]|$)",
)
_ZH_RESTATED = (
    "(?:(?:最终|总体?|综合|真实|实际|新的?|正确的?)(?:得分|评分|分数|打分)(?:应该?|应当|现在|改)?(?:是|为|:|=)"
    "|(?<!平均)(?:得分|评分|分数)(?:应该?|应当|现在|改)(?:是|为)|(?:应该?是|应该?为|(?:更正|修正|调整|改)[成为]|改打))"
)

_ZH_BARE = (
    "(?:^|[\\n!?;(]|(?<![0-9])[.,])[\\s*_]*(?:所以|因此|综上|最[后终]|综合|总体?|应该?|还是|只能?|我|现在|就|给|打|是|为|[得评打]分|分数|分|[:=,\\s*_])*+"
    "([0-9]{1,2}(?:\\.[0-9]{1,4})?)(?:\\s*/\\s*10)?(?:\\s*分[吧了*_]*(?=[\\s.,!;)]|$)|[*_.!]*\\s*(?:\\n|$))"
)

# --- German, French, Spanish, Japanese, Korean ----------------------------------------------------------

_OTHERS_TAKEN_BACK = (
    rf"{_BEGIN}(?:moment|nein|halt|doch\s+nicht|korrektur|quatsch|falsch|entschuldigung|non|attendez|correction|pardon|d\u00e9sol\u00e9e?"
    rf"|espera|perd\u00f3n|correcci\u00f3n|lo\s+siento){_STOP}",
    r"\b(?:nehme|ziehe)\s+(?:das|es|ich|dies|meine\s+\w+|die\s+\w+)\s+(?:\w+\s+)?zur\u00fcck\b|\bich\s+habe\s+mich\s+(?:geirrt|vertan)"
    r"|\b(?:das|die\s+(?:note|wertung|bewertung|punktzahl))\s+(?:ist|war|stimmt)\s+(?:leider\s+|doch\s+)?(?:falsch|nicht|zu\s+hoch"
    r"|zu\s+niedrig)\b",
    r"\bje\s+(?:retire|me\s+suis\s+tromp|me\s+trompe|reviens\s+sur)|\b(?:cette\s+note|ce\s+score)\s+est\s+(?:trop|faux|fausse|incorrect)",
    r"\b(?:me\s+)?(?:retracto|equivoqu\u00e9|he\s+equivocado)\b|\bretiro\s+(?:lo|eso|mi|esa|la)\b|\besta\s+(?:nota"
    r"|puntuaci\u00f3n)\s+es\s+(?:demasiado|incorrecta|err)",
    "取り消し|撤回|訂正|間違え|間違いました|いや、|待って|やっぱり|취소|철회|정정|잘못\\s*(?:봤|보았|평가|판단)|아니요?,|잠깐",
)

# --- English --------------------------------------------------------------------------------------------

_NOUN = r"(?:scores?|verdicts?|ratings?|answers?|numbers?|grades?|judge?ments?|evaluation|assessment|repl(?:y|ies)|response)"
_OWN = (
    rf"(?:the|my|this|that|these|those)\s+(?:(?:last|final|above|previous|first|earlier|overall)\s+){{0,2}}"
    rf"(?:{_NOUN}(?:\s+above|\s+(?:on|for|of)\s+[A-Z][0-9]{{1,3}})?|above)"
)
_IT = rf"(?:that|this|it|these|those|everything|{_OWN})"
_WELL = r"(?:\s+(?:only|just|also|merely|actually|clearly|simply|now|bit|a|far|way|much|still|rather|really|probably|obviously|in\s+fact))*"
_IS = (
    rf"(?:['\u2019]s|\s+(?:is|was|were|are|seems?|looks?|feels?|sounds?|must\s+be"
    rf"|may\s+be|might\s+be|has\s+been|should\s+be|to\s+be)){_WELL}"
)
_IS_NOT = (
    r"(?:\s+(?:isn|wasn|aren|weren|can|couldn|doesn|don|didn)['\u2019]t|\s+(?:cannot|could\s+not|can\s+not|does\s+not|do\s+not)"
    rf"|{_IS}\s+(?:not|no\s+longer|hardly))(?:\s+(?:be|look|seem|feel|sound))?{_WELL}"
)
_TOO = r"too\s+(?:high|low|generous|harsh|kind|strict|severe|lenient|good|much)"
_RIGHT = (
    r"(?:right|correct|accurate|final|valid|fair|justified|deserved|(?:my|the|a)\s+(?:final|valid|real|true)\s+(?:\w+\s+)?" + _NOUN + ")"
)
_FAULTS = (
    rf"(?:wrong|incorrect|mistaken|inaccurate|invalid|void|withdrawn|retracted|inflated|unjustified|undeserved|unfair|preliminary"
    rf"|provisional|tentative"
    rf"|{_TOO}|(?:an?|my|the)\s+(?:first\s+|early\s+|wild\s+|rough\s+)?(?:mistake|error|typo|slip|draft|guess|example|placeholder|joke"
    rf"|impression)"
    r"|(?:for|about|of)\s+(?:the\s+wrong|another|a\s+different)\s+(?:picture|image|photo|edit|pair))"
)
_MODAL = (
    r"(?:['\u2019](?:ll|d|m)|\s+(?:will|would|should|must|shall|am|now|have\s+to|need\s+to|want\s+to|ought\s+to|'?d\s+(?:like|rather)\s+to"
    r"|had\s+better|like\s+to|going\s+to))"
)
_AMEND = (
    r"(?:lower|rais|reduc|increas|adjust|amend|downgrad|upgrad|chang|correct|fix|redo|undo|revok|annul|cancel|delet|updat"
    r"|re-?\s?(?:evaluat|assess"
    r"|scor|rat|grad|judg|do|check|think|think|consider|vis))(?:e|ing|oing)?"
)
_SORRY = (
    r"(?:wait|actually|hold\s+on|hang\s+on|no(?:pe)?(?:[\s,]+no)*|nah|not(?:\s+(?:really|applicable|so|(?:a\s+)?(?:valid|final"
    r"|real)(?:\s+score)?))?|h+m+|sorry|w?h?o+ps(?:ie)?|apologies"
    r"|my\s+(?:bad|error|fault|mistake|apologies)|(?:that['\u2019]s\s+)?wrong(?:\s+(?:score|answer|picture|image|number))?|incorrect"
    r"|disregard|void|withdrawn"
    rf"|retracted|redo|typo|correction|corrected|revised|revision|erratum|amended|adjusted|preliminary|tentative|placeholder"
    rf"|(?:just\s+)?kidding"
    rf"|(?:(?:seems|looks|feels|sounds)\s+)?{_TOO}|(?:to\s+be\s+)(?:revised|continued|corrected)|(?:second|new)\s+(?:thoughts?|attempt"
    rf"|try)|attempt\s+[0-9]|take\s+two|start(?:ing)?\s+over"
    r"|once\s+more|(?:try\s+)?again|first\s+impression(?:\s+only)?)"
)
_TAKEN_BACK = re.compile(
    "|".join(
        (
            r"\A[\s*_(]*(?:n/?a|none|null|void)[\s*_).]*\Z",
            rf"{_BEGIN}{_SORRY}{_STOP}|,\s*(?:correction|revised|revision|erratum)\s*[:.\u2014\u2013-]",
            rf"(?:{_SENTENCE}|,)[ \t*_]*(?:up)?on\s+(?:second\s+thoughts?|(?:further\s+)?reflection)\b",
            r"\b(?:tak(?:e|ing)|took)\s+(?:that|it|this|everything|all|my\s+\w+|the\s+\w+)\s+(?:all\s+)?back\b",
            rf"\b(?:scratch|strike|forget|discard|drop|cancel|scrap|delete|disregard|ignore)\s+(?:(?:all|any)\s+(?:of\s+)?)?"
            rf"(?:{_OWN}|(?:that|this|it)(?=[\s*_]*(?:[.,;:!)\n]|$))|everything|what\s+I|(?:the|my)\s+(?:above|previous|block|last))",
            r"\b(?:withdr(?:aw|ew)(?:n|ing)?|retract(?:ed|ing)?|rescind|reconsider(?:ing)?)\b|\bnever\s?mind(?=[.,;:!)\s]*(?:[\n.,;:!)]"
            r"|$))",
            r"\bmy\s+mistake\b|\bI\s+stand\s+corrected\b|\bI['\u2019]?m?\s+(?:was\s+|am\s+|have\s+been\s+)?(?:too\s+(?:kind|generous|harsh"
            r"|strict|lenient|quick)\b)",
            r"\bI(?:['\u2019]m|\s+(?:was|am))\s+(?:wrong|mistaken)\b|\bI\s+apologi[sz]e\b|\bI\s+(?:have\s+|had\s+)?err(?:ed)?\b",
            r"\bI(?:['\u2019]m|\s+am)?\s+(?:not\s+sure|unsure|uncertain|guess(?:ed|ing)|do(?:\s+not|n['\u2019]t)\s+know|have\s+no\s+idea)"
            rf"(?=[\s*_]*(?:[.,;:!)\n]|$)|\s+(?:about|of|whether|if|that)\s+{_IT}\b(?!\s+(?:\w+\s+)?(?:why|how|who|hat)))",
            r"\bI(?:['\u2019](?:ve|d)|\s+(?:have|had|must\s+have|may\s+have|might\s+have))?\s+(?:\w+ly\s+)?(?:"
            r"mis(?:read|judged|took|typed|counted|understood|saw|interpreted|placed|sed(?=\s+(?:the|that|a|it|this|[A-Z][0-9])))"
            r"|overlook(?:ed)?|forg[eo]t(?:ten)?|confused|mixed|swapped|made\s+an?\s+(?:\w+\s+)?(?:mistake|error|slip)"
            r"|(?:looked|took|compared|used|judged|had|got|rated|scored|saw)\b[^.!?\n]{0,30}\b(?:wrong\s+(?:pictures?|images?|photos?"
            r"|edits?|pair|version|one|order|way|source)|swapped|mixed|reversed))\b",
            r"\b(?:there\s+(?:is|was)|I\s+(?:see|found|find|spot))\s+(?:now\s+)?an?\s+(?:mistake|error)\s+(?:above|in\s+(?:my"
            r"|the\s+(?:above|verdicts|score|answer)))\b",
            r"\b(?:I|we)(?:['\u2019](?:m|d|ll))?\s+(?:cannot|can\s+not|can['\u2019]t|could\s+not|couldn['\u2019]t|(?:am\s+|are\s+)?(?:un"
            r"|not\s+)able\s+to|will\s+not|won['\u2019]t|refuse\s+to"
            r"|decline\s+to|(?:would\s+)?rather\s+not)\s+(?:really\s+|reliably\s+)?(?:(?:judge|score|rate|assess|evaluate|grade)\b|(?:tell"
            r"|say)(?=[.!,;\n]|$)"
            r"|(?:give|provide|offer|assign)\s+(?:a|any|the)\s+(?:(?:valid|reliable|meaningful|final|fair|proper|single)\s+)?(?:score"
            r"|rating|number|judge?ment|verdict|grade)\b)",
            rf"{_BEGIN}(?:unable|not\s+able|impossible)\s+to\s+(?:judge|score|rate|assess|evaluate|tell|say)\b",
            rf"(?:{_BEGIN}(?:\w+(?:\s+\w+){{0,3}}?,?\s+)?(?:I\s+(?:\w+\s+){{1,2}}?)?(?:that|this|it|these|those)|\b{_OWN})"
            rf"(?:{_IS}\s+(?:{_FAULTS}|not\s+{_RIGHT})|{_IS_NOT}\s+{_RIGHT})\b(?!\s+(?:only\b|to\s+\w|(?:in|on|with|at)\s+the\b))",
            rf"(?:{_BEGIN}(?:this|that|it)|\b{_OWN})\s+(?:should|must|ought\s+to|has\s+to|needs\s+to)\s+(?:be|have\s+been)\s+(?:\w+\s+)?"
            r"(?:lower(?:ed)?|higher|raised|less|more|reduced|revised|corrected|changed)(?=[\s*_]*(?:[.,;:!)\n]|$))",
            rf"\b(?:I|we|let\s+me)(?:{_MODAL}){{0,3}}\s+{_AMEND}\s+(?:it|this|that|{_OWN}|myself)\b(?!\s+(?:if|were|only\s+if"
            rf"|slightly\s+if))",
            rf"\b(?:I|we)(?:{_MODAL}){{0,3}}\s+(?:redo|start\s+over|start\s+again|try\s+again|look\s+again|think\s+again"
            rf"|re-?\s?(?:evaluate|consider|assess|check|think|score))\b",
            rf"\b(?:revised|updated|new|amended)\s+{_NOUN}\b|\bI\s+(?:must\s+|will\s+|now\s+)?(?:am\s+)?revis(?:e|ing)\b|\bchang(?:e|ed"
            rf"|ing)\s+my\s+mind\b",
            r"\blet\s+me\s+(?:re(?!mark|mind|iterate|state|peat)|think|check|look|start|redo|correct|do|try|fix|see|double|take\s+another"
            r"|have\s+another|change|adjust|lower|raise)",
            rf"\b(?:do\s+not|don['\u2019]t|please\s+do\s+not)\s+(?:use|count|trust|take|record|rely\s+on)\s+{_IT}\b",
            rf"\bI\s+(?:no\s+longer|do\s+not|don['\u2019]t|did\s+not|didn['\u2019]t|cannot|can['\u2019]t)\s+(?:really\s+)?(?:stand\s+by"
            rf"|agree\s+with|mean|believe(?:\s+in)?|trust|endorse)\s+{_IT}\b",
            rf"\bI\s+disagree\s+with\s+(?:myself|{_IT})\b",
            r"\"(?:final_|overall_)?score\"\s*:\s*null\b",
            *_ZH_TAKEN_BACK,
            *_OTHERS_TAKEN_BACK,
        )
    ),
    re.IGNORECASE,
)

# --- another number in words ----------------------------------------------------------------------------

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = rf"([0-9]{{1,2}}(?:[.,][0-9]{{1,4}})?|{'|'.join(_WORDS)})"
_SAYS_ANEW = (
    r"(?:i|we|i['\u2019](?:d|ll)|it['\u2019]?s?|that['\u2019]?s?|this|let['\u2019]?s|so|thus|hence|therefore|then|now|final(?:ly)?|overall"
    r"|total|true|real|new|old|my|the|a|an"
    r"|score|rating|grade|answer|verdict|judge?ment|result|is|are|was|be|been|to|at|on|as|would|will|should|must|shall|may|might|give"
    r"|gives|say|call|mean|meant|make|makes"
    r"|change|changed|lower|lowered|raise|raised|reduce|reduced|adjust|adjusted|downgraded?|upgraded?|go|going|with|for|settle|rather"
    r"|better|or|and|no(?=\s*[,:.\u2014-])|but|update|updated|edit|revised"
    r"|corrected|amended|correction|actually|instead|only|just|really|in|of|down|up|more|like|probably|rate|think|still|typo|er|hmm|wait)"
)
_BARE = re.compile(
    rf"(?:^|[\n(;!?]|[.,](?=\s))[ \t*_>\"'-]*((?:{_SAYS_ANEW}\b[\s:=,*_\"'-]*){{0,9}})(?:[-=]*>+|[=\u2192\u21d2])?[\s*_(\"']*{_NUMBER}"
    r"(?:\.0)?(?:\s*(?:/|out\s+of)\s*10)?(?:\s*points?)?[*_)\"']*"
    r"(?:\s+(?:instead|in\s+total|overall|now|then|was\s+meant|points?|(?:is|would\s+be|seems)\s+(?:\w+\s+)?(?:appropriate|fair(?:er)?"
    r"|accurate|right|better|correct)))*"
    r"(?:[\s.!,;)\"'*_]*(?:\n|$)|[.!;,]\s(?=(\s*\S)))",
    re.IGNORECASE,
)
_RESTATED = re.compile(
    r"(?:(?:(?<=[.!?,;:\n({\"'*])|^"
    r"|\b(?:the|my|final|overall|true|real|new|total|correct|revised|so|that)[ _])[\s*_\"']*score[\"'*_]*\s*(?::|=|is|was|(?:should|would"
    r"|must)\s+be)"
    rf"|{_ZH_RESTATED})"
    r"[\s\"'*_]*([0-9]{1,2}(?:[.,][0-9]{1,4})?)(?![0-9%:-])",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|(?<!go )with|without|were|had|unless|otherwise|could|might)\b|如果|若|要是|假如|倘若|本来|原本|否则|只有", re.IGNORECASE
)


def is_taken_back(tail: str) -> bool:
    """Whether what follows a judgement withdraws it.

    >>> is_taken_back("I take that back."), is_taken_back("The roof is wrong, and that costs much.")
    (True, False)
    """
    return any(not _is_anothers(tail, *match.span()) for match in _TAKEN_BACK.finditer(tail))


def restated(tail: str) -> list[float]:
    """Scores that what follows a judgement names without tags, as in "the final score is 3" or "rather 3."; none that it quotes.

    >>> restated("So I give it a 3."), restated("1. The hat is red."), restated("With a better shadow it would be a 10.")
    ([3.0], [], [])
    """
    return [value for start, end, value in _numbers(tail) if not _is_anothers(tail, start, end) and not _is_conditional(tail, start, end)]


_RELABELLED = re.compile(
    r"\b([A-Z][0-9]{1,3})(?![0-9])[*_`]*\s*(?:(?:(?:should|must|ought\s+to|would)\s+(?:be|have\s+been)|is|was)\b|=|:|-+>|\u2192|应?该?[是为]"
    r"|改[成为])"
    r"\s*(?:(?:actually|really|also|now|in\s+fact|therefore)\s+)?[*_`'\"]*"
    r"(?:(yes|1|true|met|satisfied|fulfilled|是|满足)|(?:no|0|false|unmet|not\s+(?:met|satisfied|fulfilled)|否|不满足))[*_`'\"]*"
    r"(?=\s*(?:[.,;:!)\n]|$|instead|not|because|since|as\b))"
)


def contradicts(tail: str, verdicts: Mapping[str, bool]) -> bool:
    """Whether what follows verdicts gives one of them, by its label, another answer.

    >>> contradicts("K1 should be no.", {"K1": True}), contradicts("K1 is no, as said.", {"K1": False})
    (True, False)
    """
    for match in _RELABELLED.finditer(tail):
        known = verdicts.get(match[1])
        if known is not None and known != bool(match[2]) and not _is_anothers(tail, *match.span()):
            return True
    return False


def _numbers(tail: str) -> Iterator[tuple[int, int, float]]:
    for match in itertools.chain(_RESTATED.finditer(tail), re.finditer(_ZH_BARE, tail)):
        yield match.start(1), match.end(), float(match[1].replace(",", "."))
    for match in _BARE.finditer(tail):
        listed = match[3] is not None and not match[1].strip()  # `1. The hat ...`
        if not listed:
            said = match[2].lower()
            yield match.start(2), match.end(2), float(_WORDS.index(said) if said in _WORDS else said.replace(",", "."))


def _is_anothers(tail: str, start: int, end: int) -> bool:
    """Whether words stand in quotation marks, or their own line gives them to somebody else."""
    start += len(tail[start:end]) - len(tail[start:end].lstrip())
    ends_sentence = any(mark in ".!?\n" for mark in tail[max(start, end - 1) : end + 1])
    return is_quoted(tail, start, end, tail.rfind("\n", 0, start) + 1, ends_sentence)


def _is_conditional(tail: str, start: int, end: int) -> bool:
    """Whether the sentence speaks of what would be otherwise."""
    before = re.split(r"[.!?;\n]\s", tail[max(0, start - 160) : start])[-1]
    behind = re.split(r"[.!?;\n]", tail[end : end + 160])[0]
    return bool(_CONDITION.search(before) or _CONDITION.search(behind))
