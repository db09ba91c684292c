"""Whose word a passage of an answer is: the judge's own, somebody else's that it quotes, or one that it rejects or takes back.

English and Chinese words and the quotation marks of several languages, looked for in the sentence around the passage. Where words do
not decide, the passage counts as the judge's own. ours: no source; `benchmarks/phi_fuzz.py` counts what slips through.
"""

from __future__ import annotations

import re

_REACH = 240  # ours: characters before and behind that can belong to the same sentence
_LINE = 2_000  # ours: on a longer line quotation marks are not counted, so that time stays linear

# --- Chinese words, each beside the English ones that it goes with ---------------------------------------

_ZH_IN = "(?:上面|上|中|里)?"
_ZH_SIGNS = (
    "(?:文字|字幕|字样|标语|招牌|牌子|牌|看板|告示|标签|水印|海报|横幅|屏幕|衬衫|T恤|墙|纸|书|页面|贴纸|便条|黑板|标题)"
    f"{_ZH_IN}(?:的(?:文字|字))?"
)
_ZH_OTHERS = f"(?:用户|指令|提示词?|请求|题目|原文|示例|模板|图片|图像|图|照片|画面|他们?|她们?|它们?|有人|别人|某人){_ZH_IN}"
_ZH_OWN = "(?:我们?|本人|(?:最终|总体?|综合)?(?:得分|评分|分数|判断|结论|答案))"
_ZH_SAYS = "(?:写着|写道|写的是|写了|写有|写|说道|说的是|说|声称|宣称|回答|答道|喊道|引用|印着|印有|标着|标注着?|刻着|贴着|读作|念作)"
_ZH_DEMANDS = "(?:要求|命令|让|请|叫|希望|想要)[^,.;:!?\\n]{0,6}(?:输出|给出?|打|写出?|回答|返回|评为?|打分|填)"
_ZH_SHOWS = "(?:显示着?|展示着?|包含|带有|出现)"
_ZH_FILLER = "(?:了|着|的是|是|为|道|一个|一行|这样|直接|只|文字|字样|内容|分数|得分|评分|满分|如下)*+"
_ZH_ONLY = "(?:这|那|它)?(?:只是|仅是|不过是|是)"
_ZH_SAID_BEHIND = (
    f"(?:{_ZH_ONLY})?(?:写|印|画|刻|贴|出现|显示)在|[(]?{_ZH_ONLY}(?:{_ZH_SIGNS}|{_ZH_OTHERS})(?:的|写|说|要求)"
    "|的?(?:字样|几个字|这行字|这句话)|(?:对此)?,?我?(?:会|将|选择|予以|应)?(?:忽略|无视|不予|不理会|不采纳|不采信)"
)
_ZH_GRADING = (
    "(?:是|给出?|达到|打[出到]?|得分|得到?|到|为|有|一个|评分|评为?|这样|这么|那么|高|低|的|分数|满分|接近|超过|能|会|可以|值得?"
    "|配得?上?|够得?上?|说|认为|同意|我)*+"
)
_ZH_MIGHT = "(?:就|才|本|会|可以?|能|应该?|将|想)"
_ZH_REJECTED = (
    f"(?:不|没有?|并非|不是|绝不|远不|远低于|远不及|达不到|够不上|称不上|算不上|谈不上|而非|而不是){_ZH_GRADING}"
    f"|(?:本来|原本|本){_ZH_MIGHT}[^.;\\n]{{0,30}}|(?:如果|要是|若是|倘若)[^.;\\n]{{0,80}}{_ZH_MIGHT}++{_ZH_GRADING}"
    "|(?:假设|假如|假定)(?:(?!但|所以|因此|然而)[^.;\\n]){0,80}"
)
_ZH_REJECTED_BEHIND = (
    "[?]\\s*(?:不|当然不)|,(?:如果|假如|要是|除非|前提是|假设)|(?:是|就|显然|明显|未免|实在|显得|都|分|这个分数)*+"
    "(?:[太偏][高低]|过[高低于]|不对|不合适|不合理|不可能|错误?的|错了|不成立)"
)
# --- quoted ---------------------------------------------------------------------------------------------

_PAIRS = {"\u201c": "\u201d", "\u201e": "\u201c\u201d", "\u00ab": "\u00bb", "\u00bb": "\u00ab", "\u2039": "\u203a",
          "\u300c": "\u300d", "\u300e": "\u300f", "\u300a": "\u300b", "\u2018": "\u2019", "\u201a": "\u2018\u2019"}  # fmt: skip
_NO_INCH = re.compile(r'(?<![0-9])"')
_WRAPPING = " \t\n*_`'\"(<[\u201c\u201e\u00ab\u300c\u2018"
_FENCE_AT_END = re.compile(r"`{3,}[a-z]{0,8}\s*$")
_SIGNS = r"(?:text|caption|sign|board|billboard|scoreboard|label|watermark|poster|banner|screen|shirt|wall|paper|page|book|sticker|note)"
_OTHERS = r"(?:instructions?|user|prompt|request|message|ocr|quote|example|template|picture|image|photo|it|they|he|she|some(?:body|one))"
_SAYS = (
    r"(?:reads?|reading|says?|said|saying|states?|stating|claims?|claiming|writes?|wrote|written|demands?|demanded|demanding|asks?|asked"
    r"|asking"
    r"|requests?|requested|tells?|told|wants?|wanted|instructs?|quotes?|quoted|orders?|hopes?|hoped|wishes|wished|expects?|expected"
    r"|would\s+like)"
)
_FILLER = (
    r"(?:\s+(?:that|the|a|an|me|us|you|for|with|as|out|literally|just|only|to|give|write|answer|say|print|output|it|words?|text"
    r"|edit|judge))*"
)
_ATTRIBUTED = re.compile(
    rf"(?:\b(?:{_SAYS}|(?<=\W)(?:shows?|displays?|bears?|carries|prints?|contains?)(?P<shown>)){_FILLER}"
    rf"|(?:{_ZH_SAYS}|{_ZH_DEMANDS}|{_ZH_SHOWS}(?P<shown_zh>)){_ZH_FILLER})\s*[:,]?\s*$",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"(?:\b(?:{_SIGNS}|instructions?|user|prompt|ocr|quote)(?:\s+(?:in|on|of|from)\s+(?:the|its|this)\s+\w+)?"
    rf"|(?:{_ZH_SIGNS}|用户|指令|提示词?|原文|引文)(?:内容|原话)?)\s*:\s*$",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\b(?:I|my|we|our)\b|我")
_SUBJECT = re.compile(
    rf"\b(?:(?P<own>I|my|we|our|(?:final|overall)\s+(?:\w+\s+)?(?:score|rating|verdict|grade|answer|judge?ment)|verdicts?|rating)"
    rf"|(?P<sign>{_SIGNS})|{_OTHERS})\b|(?P<own_zh>{_ZH_OWN})|(?P<sign_zh>{_ZH_SIGNS})|{_ZH_OTHERS}",
    re.IGNORECASE,
)
_SAID_BEHIND = re.compile(
    r"^[\s\"'`*_)\]\u201d\u00bb\u300d]*,?\s*(?:"
    r"(?:(?:is|are|was|were|stands?|appears?|being|as|that\s+is|which\s+is)\s+)?(?:written|printed|painted|displayed|carved|engraved"
    r"|quoted|visible)\b"
    rf"|(?:is|was)\s+(?:only\s+|just\s+|merely\s+)?what\s+(?:the|that|this|it|somebody|someone)\b|(?:says|reads|said|wrote|writes)\s+the\b"
    r"|which\s+I\s+(?:ignore|disregard|do\s+not|don't|will\s+not|won't|cannot|can't)\b|which\s+is\s+(?:not\s+mine|ignored|irrelevant|only"
    r"|just)\b"
    rf"|(?:on|in)\s+the\s+{_SIGNS}\b|{_ZH_SAID_BEHIND})",
    re.IGNORECASE,
)


def is_quoted(text: str, start: int, end: int, floor: int = 0, ends_sentence: bool = False) -> bool:
    """Whether text[start:end] stands in quotation marks, or its sentence gives it to somebody else; text before `floor` is not looked at.

    ends_sentence: what follows it says nothing of it.

    >>> text = "My view: <score>2</score> (the board reads <score>10</score>)"
    >>> is_quoted(text, 9, 25), is_quoted(text, 43, 60)
    (False, True)
    """
    return _in_marks(text, start, end, floor) or _attributed(text, start, len(text) if ends_sentence else end, floor)


def _in_marks(text: str, start: int, end: int, floor: int) -> bool:
    floor = max(floor, text.rfind("\n", max(0, start - _LINE), start) + 1)
    if start - floor > _LINE:
        return False
    before = text[floor:start]
    line_end = text.find("\n", end, end + _REACH)
    after = text[end : line_end if line_end >= 0 else end + _REACH]
    for opening, closings in _PAIRS.items():
        at = before.rfind(opening)
        if at >= 0 and not any(mark in before[at + 1 :] for mark in closings) and any(mark in after for mark in closings):
            return True
    # A mark behind a digit may be an inch: it must be odd either way.
    if before.count('"') % 2 and len(_NO_INCH.findall(before)) % 2 and '"' in after:
        return True
    if before.endswith("'") and after.startswith("'"):
        return True
    # A tag alone in code marks is a way of setting it off; among other words it is a quotation.
    alone = before.endswith("`") and after.startswith("`")
    return bool(before.count("`") % 2) and "`" in after and not alone


def _attributed(text: str, start: int, end: int, floor: int) -> bool:
    lead = _FENCE_AT_END.sub("", text[max(floor, start - _REACH) : start]).rstrip(_WRAPPING)
    clause = re.split(r"[.;!?\n]|(?<!-)>", lead)[-1]
    if _said_by_another(clause) or _NAMED.search(clause) or _SAID_BEHIND.match(text[end : end + _REACH]):
        return True
    # `The user wrote: F1 -> yes <score>10` gives all of its sentence away, unless the judge comes in.
    head, colon, rest = clause.partition(":")
    return bool(colon) and not _FIRST_PERSON.search(rest) and (_said_by_another(head) or bool(_NAMED.search(f"{head}:")))


def _said_by_another(clause: str) -> bool:
    """Whether a clause ends in a verb of saying whose subject, the nearest one before it, is not the judge."""
    said = _ATTRIBUTED.search(clause)
    subjects = list(_SUBJECT.finditer(clause, 0, said.start())) if said else []
    if said is None or not subjects or subjects[-1].group("own") or subjects[-1].group("own_zh"):
        return False
    shown = said.group("shown") is not None or said.group("shown_zh") is not None
    return not shown or subjects[-1].group("sign") is not None or subjects[-1].group("sign_zh") is not None


# --- rejected, taken back -------------------------------------------------------------------------------

_GRADING = (
    r"(?:a|an|the|quite|really|even|as|of|at|to|with|yet|still|just|only|than|be|been|worth|give|given|giving|award|say|call|rate|score"
    r"|deserve"
    r"|deserves|reach|far|go|high|low|going|it|this|that|enough|for|by|any|near|exactly|merit|justify|earn|get|assign|accept|agree|stand"
    r"|stay|my|final|up|anything|like)"
)
_GIVES = (
    r"(?:be|been|is|was|give|given|gave|gives|get|gets|got|earn|receive|award|say|said|write|written|wrote|put|answer|expect|rate|rated"
    r"|score|merit|deserve|justify|reach|like"
    r"|have|hope|want|thought|considered|had)(?:[\s*_]+(?:it|this|that|them|him|me|of|for|as|at|with|to|a|an|the|score|rating|even|about"
    r"|around|say|see|give|have|edit))*"
)
_SOMEBODY = (
    r"(?:(?:nobody|no\s?one|none|others|another|some|some(?:body|one)|any(?:body|one)|everybody|everyone|people|one|you|they|he|she|few"
    r"|many|most)(?:\s+else)?"
    r"|(?:an?|no|any|another|some|other|the\s+other|the\s+last|the\s+previous|my)\s+(?:[\w-]+\s+)?(?:judges?|readers?|raters?|graders?"
    r"|reviewers?|people|colleagues?|models?"
    r"|critics?|annotators?|edits?|picture|user)|(?:an?|the)\s+(?:best|better|perfect|ideal|flawless)\s+(?:edit|picture|image|result))"
)
_TOWARDS = r"(?:so|but|hence|thus|therefore|now|instead|yet|still|as\s+it\s+is|as\s+is|actually)"  # leads to what is real
# A sentence that is hypothetical up to the passage, or speaks of what it falls short of.
_REJECTED = re.compile(
    rf"(?:(?:\b(?:not(?!\s+really|[\s*_]*:)|never|neither|nor|hardly|cannot|no\s+longer|by\s+no\s+means|in\s+no\s+way(?:\s+is\s+(?:it"
    rf"|this))?|refuse|declin|hesitate)\w*|n['\u2019]t)(?:[\s*_]+{_GRADING})*"
    r"|\b(?:nicht|keine?[nrs]?|niemals|pas|jamais|nunca|no\s+(?:es|le\s+doy|merece))(?:[\s*_]+(?:une?|eine?[nr]?|un|mit|de|als|wert|plus"
    r"|l\u00e0))*"
    r"|(?:['\u2019]s|\b(?:is|was|certainly|surely|clearly|definitely))\s+no|\bnothing\s+like(?:\s+an?)?"
    r"|\b(?:instead\s+of|rather\s+than|far\s+from|short\s+of|nowhere\s+near|anything\s+but)(?:\s+(?:a|an|the|my))?"
    r"|(?<!no )(?<!not )(?<!never )(?<!nothing )\b(?:less|lower|worse|more|higher|better)\s+than(?:\s+an?)?|(?:^[\s*_]*|\b(?:is|lies"
    r"|stays|far|well|anything)\s+)(?:below|under|above|beyond|over)(?:\s+an?)?"
    rf"|\b(?:would['\u2019]ve|(?:would|might|could)\s+have|['\u2019]d\s+have)\b(?:(?!\b{_TOWARDS}\b)[^.;\n]){{0,60}}"
    rf"|\b(?:might|could)\s+(?:\w+\s+)?{_GIVES}"
    rf"|\b(?:almost|nearly|first|initially|originally|at\s+first|tempted\s+to|about\s+to"
    rf"|inclined\s+at\s+first\s+to)\s+(?:I\s+)?(?:\w+ly\s+)?{_GIVES}"
    r"|\b(?:my|the)\s+(?:first|initial|earlier|previous|original|last)\s+\w+\s+(?:was|had\s+been)(?:\s+an?)?"
    rf"|\b{_SOMEBODY}(?:['\u2019]d|\s+(?:would|will|might|may|could|can|usually|often|has|had))?\s+{_GIVES}"
    r"|(?:^|[.!?\n])[\s*_]*(?:at\s+first\s+(?:sight|glance)|initially|originally)[\s,]*"
    rf"|\b(?:suppose|supposing|assume|assuming|hypothetically|imagine|in\s+theory|in\s+the\s+best\s+case)\b(?:(?!\b(?:{_TOWARDS}"
    rf"|I)\b)[^.;\n]){{0,120}}"
    rf"|\bif\b[^.;\n]{{0,80}}\b(?:were|was|had|not\s+for)\b(?:(?!\b{_TOWARDS}\b)[^.;\n]){{0,80}}"
    rf"|^[\s*_]*(?:had|were|without|but\s+for|(?:only\s+)?with)\b(?:(?!\b{_TOWARDS}\b)[^.;\n]){{1,80}}(?:,|\b(?:would|might|could"
    rf"|['\u2019]d))(?:\s+(?:I|it|this))?(?:\s+(?:would|might|could))?(?:\s+{_GIVES})?"
    r"|\b(?:(?:need|needs|takes)\b[^.;\n]{0,40}|missing|required|enough)\s+for(?:\s+an?)?|(?:^[\s*_]*|\b(?:fails?|more|order|needs?|had"
    r"|hard|nothing)\s+)to\s+(?:earn|get|reach|merit|deserve)(?:\s+an?)?"
    r"|\b(?:misses|missed|(?:never|does\s+not|failed\s+to)\s+reach(?:es)?)(?:\s+an?)?"
    rf"|{_ZH_REJECTED})[\s*_:,]*$",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:\b(?:not|never|cannot|no)|n['\u2019]t)\b[^.;:\n]{0,40}\b(?:more|higher|further|better|above"
    r"|beyond)(?:\s+than)?(?:\s+an?)?[\s*_:,]*$",
    re.IGNORECASE,
)
# What is shown as a form to fill in, or asked of the judge.
_SHOWN = re.compile(
    r"(?:(?:^|[\n.;!?>])[\s*_#]*(?:(?:an?\s+|the\s+)?(?:example|sample|template)(?:\s+(?:output|answer|score|reply|response|of\s+(?:the"
    r"|an?)\s+\w+))?|format|for\s+(?:example|instance)|e\.?g\.?)[\s*_]*[:,]?"
    r"|\b(?:for\s+(?:example|instance)|e\.g\.|such\s+as|(?:something|look|looks)\s+like(?:\s+this)?)\s*[:,]?|\b(?:the"
    r"|this)\s+format(?:\s+(?:is|would\s+be|will\s+be)\s*:?)?"
    r"|\b(?:am|was|were|been|being)\s+(?:told|asked|ordered|instructed|supposed|urged|expected|invited)\s+to\s+(?:say|give|write|answer"
    r"|output|print|reply|put|state|return)"
    r"(?:\s+(?:with|that|a|the|it|score|of))*\s*:?)[\s*_`\"'\u201c]*$",
    re.IGNORECASE,
)
_REJECTED_BEHIND = re.compile(
    r"^[\s*_)`\"']*(?:\?|,?\s*(?-i:if|had|unless)\b|(?:is|was|would\s+be|seems?|looks?)\s+(?:far\s+|much\s+|way\s+|clearly\s+)?"
    r"(?:wrong|too\s+\w+|not\b|a\s+mistake|undeserved|unjustified|excessive|out\s+of\s+the\s+question)"
    rf"|{_ZH_REJECTED_BEHIND}|(?:では|じゃ)(?:ない|ありません)|(?:이|가)?\s*아니)",
    re.IGNORECASE,
)


_STRUCK = re.compile(r"(?:(?<!~)~~|<(?:del|s|strike)>)[\s*_]*$", re.IGNORECASE)
_STRUCK_BEHIND = re.compile(r"[\s*_]*(?:~~(?!~)|</(?:del|s|strike)>)", re.IGNORECASE)


def is_rejected(text: str, start: int, end: int, floor: int = 0) -> bool:
    """Whether the sentence around text[start:end] names it as what the judge does not mean.

    >>> is_rejected("I would not go as far as 9", 25, 26), is_rejected("The hat is not red: 3", 20, 21)
    (True, False)
    """
    lead = text[max(floor, start - _REACH) : start]
    clause = re.split(r"[.;!?\n>]", lead)[-1]
    clause = clause if ":" not in clause.rstrip(" :*_") else clause.rpartition(":")[2]
    behind = text[end : end + _REACH]
    struck = bool(_STRUCK.search(lead)) and bool(_STRUCK_BEHIND.match(behind))
    rejected = _REJECTED.search(clause) and not _BOUND.search(clause)
    return struck or bool(rejected or _SHOWN.search(lead) or _REJECTED_BEHIND.match(behind))
