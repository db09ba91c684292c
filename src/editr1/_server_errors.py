"""What a server says in place of an answer, and what it means: it passes, the content is refused, or a setting is wrong.

OpenAI, Azure, vLLM, SGLang, FastAPI, DashScope, Gemini, OpenRouter, LM Studio and gateways each have a shape of their own, some of them
behind a status of 200. Here they become one `Complaint`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_NAMED_STATUS = {
    "insufficientquota": 402, "billingerror": 402, "invalidapikey": 401, "authenticationerror": 401, "unauthenticated": 401,
    "permissionerror": 403, "permissiondenied": 403, "modelnotfound": 404, "notfounderror": 404, "requesttoolarge": 413,
    "badrequesterror": 400, "invalidrequesterror": 400, "invalidargument": 400, "contextlengthexceeded": 400,
    "ratelimitexceeded": 429, "ratelimiterror": 429, "resourceexhausted": 429, "serveroverloaded": 503, "unavailable": 503,
    "overloadederror": 529, "apierror": 500, "internalservererror": 500,
}  # fmt: skip
_NO_CREDIT = ("insufficientquota", "insufficientbalance", "insufficientcredit", "creditbalance", "arrearage")
# How vendors name a verdict of moderation, without case and punctuation: in codes, types, reasons and messages.
_MODERATION = (
    "contentfilter", "contentpolicy", "contentmanagementpolicy", "responsibleaipolicy", "datainspectionfailed", "prohibitedcontent",
    "moderation", "inappropriatecontent", "sensitivecontent", "inputwasflagged", "flaggedinput", "promptwasflagged", "safetysystem",
    "blockedbysafety", "imagesafety", "usageguidelines", "usagepolicy", "usagepolicies", "censorship", "guardrailintervened",
    "recitation", "highrisk", "newsensitive",
)  # fmt: skip
_MODERATED_FINISH = ("contentfilter", "prohibitedcontent", "safety", "recitation", "blocklist", "spii", "sensitive", "refusal", "guardrail")
_MODERATED_CODE = ("invalidprompt", "safety", "blocklist", "spii", "refusal")
# A picture of this shape is taken by no model behind this endpoint; the next one will be.
_PICTURE = (
    "aspectratio", "imagelengthandwidth", "imagetoosmall", "imageistoosmall", "imagedimension", "imageistoonarrow",
    "mustbelargerthanfactor", "imagetoolarge", "imageistoolarge", "imageexceeds", "imagesizeexceeds",
)  # fmt: skip
_ACCOUNT = ("account", "organization", "organisation", "suspended", "deactivated")  # whose state is a setting, whatever it was flagged for
_NO_VERDICT = (401, 402, 404, 408, 429, 503)  # these statuses speak of the account, the address or the load, whatever words they use

_ADDRESS = ("unexpected endpoint", "unknown endpoint", "unknown url", "invalid url", "no route", "not found", "<html", "<!doctype")

# Words of a complaint about a setting, and what to change. The first that fits is said.
_SETTINGS = (
    (
        ("max_model_len", "maximum context length", "maximum model length", "context length", "context_length", "context window",
         "context size", "max_seq_len", "too many tokens", "maximum number of tokens", "max_new_tokens", "max_total_tokens",
         "max_input_tokens", "max_input_length", "range of input length", "prompt is too long"),
        "the server's context (vLLM: --max-model-len) is shorter than prompt and max_tokens together: raise it, or lower max_tokens "
        "or the size of the pictures",
    ),
    (("max_completion_tokens", "max_tokens"), "change max_tokens, or set the option token_limit_field to the field that this server takes"),
    (("top_k", "repetition_penalty"), "this server does not take them: set the option sampler to plain"),
    (("logprobs",), "this server gives no token probabilities: leave out expected"),
    (("temperature", "top_p", "seed"), "name the field in the option omit"),
    (("limit-mm-per-prompt", "limit_mm_per_prompt", "image(s) may be provided", "too many images"),
     "the server takes fewer pictures a request (vLLM: --limit-mm-per-prompt '{\"image\": 2}')"),
    (("not a multimodal model", "not multimodal", "support image", "supports image", "supports only text", "image input", "vision is not",
      "unknown variant `image_url`", "image_url is only supported", "image_url is not supported", "multimodal input"),
     "the model takes no pictures: is the option model right?"),
    (("chat template", "chat_template"), "look at the server's chat template and at chat_template_kwargs in extra_body"),
    (("extra inputs", "extra fields", "unrecognized", "unknown parameter", "unsupported parameter", "unexpected keyword"),
     "a field is not known to this server: see the options omit and extra_body"),
    (("model_not_found", "does not exist", "unknown model", "invalid model", "no such model", "not a valid model"),
     "is the option model the name under which it is served?"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Complaint:
    """One server's complaint."""

    status: int
    """HTTP status, or the one that an answer of status 200 names; 0 where it names none."""
    message: str
    stated: str
    """Everything that it says, lower case, for looking up words."""

    @property
    def refusal(self) -> bool:
        """The content is refused: another prompt or picture may be answered.

        A code that says so is believed. Words are not where they may speak of something else: of a setting, of the account, or of a
        moderation that is out of order itself.
        """
        if self.status in _NO_VERDICT:
            return False
        words = _squashed(self.stated)
        if self.status >= 500:
            return _squashed(self.message).startswith(_MODERATED_FINISH)
        codes = [_squashed(found) for found in re.findall(r'"(?:code|type|reason|blockreason)": ?"([^"]*)"', self.stated)]
        if any(code in _MODERATED_CODE or any(word in code for word in _MODERATION) for code in codes):
            return True
        if self.hint or any(word in words for word in _ACCOUNT):
            return False
        return any(word in words for word in _MODERATION) or (self.status >= 400 and any(word in words for word in _PICTURE))

    @property
    def no_credit(self) -> bool:
        return self.status == 402 or any(word in _squashed(self.stated) for word in _NO_CREDIT)

    @property
    def wrong_address(self) -> bool:
        """No such path, or a page for people."""
        return self.status in (404, 405, 501) or (self.status < 400 and any(words in self.stated for words in _ADDRESS))

    @property
    def passing(self) -> bool:
        """Worth another try."""
        transient = self.status in (408, 409, 425, 429) or self.status >= 500 or self.status < 400
        return transient and not (self.refusal or self.no_credit or self.wrong_address or self.too_long)

    @property
    def too_long(self) -> bool:
        """The prompt does not fit: llama.cpp says so with a status of 500, others behind one of 200. It will not fit later."""
        odd = self.status < 400 or self.status == 500  # of a rate limit (429) or load (503) the same words may be true
        return odd and "exceed" in self.stated and any(words in self.stated for words in _SETTINGS[0][0])

    @property
    def pause(self) -> float | None:
        """Seconds to wait, where the body says so (Gemini)."""
        found = re.search(r'"retrydelay": ?"([0-9.]{1,9})s"', self.stated)
        return float(found[1]) if found and found[1].count(".") < 2 and found[1] != "." else None

    @property
    def hint(self) -> str:
        """Which setting to change; empty where the words name none."""
        if self.too_long:
            return _SETTINGS[0][1]
        if not 400 <= self.status < 500 or self.status in (401, 408, 409, 425, 429):
            return ""
        if self.status == 407:
            return "the proxy wants a user and a password: http://USER:PASSWORD@HOST:PORT"
        if self.status == 413:
            return "the request is larger than the server takes: send smaller pictures, image_format jpeg, or raise the limit there"
        return next((hint for words, hint in _SETTINGS if any(word in self.stated for word in words)), "")


def complaint_of(status: int, text: str) -> Complaint:
    """The complaint in a body of any shape: JSON of several vendors, HTML, or plain text."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        plain = " ".join(re.sub(r"<[^>]*>", " ", text[:20_000]).split())
        page = "a web page: " if "<html" in text[:2000].lower() or "<!doctype" in text[:2000].lower() else ""
        return Complaint(status, page + (plain[:200] or "an empty body"), text[:2000].lower())
    return _of_json(status, body)


def complaint_in(answer: Any) -> Complaint | None:
    """The complaint in the JSON of a status of 200; None where there is none."""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None
    if answer.get("error") or (answer.keys() & {"detail", "message"} and not answer.keys() & {"choices", "data"}):
        return _of_json(0, answer)
    base = answer.get("base_resp")  # MiniMax, where `choices` is null then
    if isinstance(base, dict) and base.get("status_code") and not answer.get("choices"):
        return _of_json(0, {"error": {"message": base.get("status_msg")}})
    rows = answer.get("choices") or answer.get("data")
    row = rows[0] if isinstance(rows, list) and rows else None
    if isinstance(row, dict):
        if row.get("error"):
            return _of_json(0, row)
        if reason := _moderated(row):
            return Complaint(400, f"finish_reason {reason}", "content_filter")
    feedback = answer.get("promptFeedback") or answer.get("prompt_feedback") or _filtered(answer.get("prompt_filter_results"))
    if feedback and not answer.get("choices"):
        return _of_json(400, {"error": {"message": f"the prompt was blocked: {json.dumps(feedback)[:200]}", "type": "content_filter"}})
    return None


def _filtered(results: Any) -> Any:
    """Azure's notes about a prompt, where they say that it was filtered."""
    return results if '"filtered": true' in json.dumps(results) else None


def _moderated(choice: dict[str, Any]) -> str | None:
    """Why moderation cut this choice of a completion; None where it did not."""
    for key in ("finish_reason", "native_finish_reason", "finishReason"):
        reason = str(choice.get(key) or "")
        if any(_squashed(reason).startswith(word) for word in _MODERATED_FINISH):
            return reason
    return None


def _of_json(status: int, body: Any) -> Complaint:
    if isinstance(body, list) and body:
        body = body[0]
    error = body.get("error") or body.get("errors") or body if isinstance(body, dict) else body
    if isinstance(error, list) and error:
        error = error[0]
    fields = error if isinstance(error, dict) else {}
    outer = body if isinstance(body, dict) else {}
    message = next((found for found in (_text(fields.get(key)) for key in ("message", "detail", "msg", "error")) if found), "")
    message = message or _text(outer.get("message")) or _text(error) or "no reason given"
    named = {key: value for key, value in {**outer, **fields}.items() if key not in ("error", "choices")}
    stated = json.dumps(_own_words({**named, "message": message}), ensure_ascii=False, default=str)[:8000].lower()
    return Complaint(status or _status_in(fields, outer), " ".join(message.split())[:300], stated)


def _own_words(value: Any) -> Any:
    """What a server says, without the parts of the request that it repeats."""
    if isinstance(value, dict):
        return {key: _own_words(item) for key, item in value.items() if key not in ("input", "ctx")}
    return [_own_words(item) for item in value[:20]] if isinstance(value, list) else value


def _text(value: Any) -> str:
    """What a message field says; FastAPI's is a list of {loc, msg, input}, and the input may hold whole pictures."""
    if isinstance(value, list):
        return "; ".join(_text(part) for part in value[:3])
    if isinstance(value, dict):
        place = ".".join(str(part) for part in value["loc"]) + ": " if isinstance(value.get("loc"), list) else ""
        return place + str(value.get("msg") or value.get("message") or json.dumps({k: v for k, v in value.items() if k != "input"}))
    return "" if value is None else str(value)


def _status_in(*places: dict[str, Any]) -> int:
    for place in places:
        for key in ("code", "status", "status_code", "type"):
            value = place.get(key)
            if isinstance(value, int | str) and re.fullmatch(r"[1-5][0-9]{2}", str(value)):
                return int(value)
            if isinstance(value, str) and _squashed(value) in _NAMED_STATUS:
                return _NAMED_STATUS[_squashed(value)]
    return 0


def _squashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
