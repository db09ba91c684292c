"""Whether several traces of one item differ at all: avg@K of K equal traces costs K times and says what one says."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

from editr1.errors import BackendError
from editr1.vlm.base import ChatReply, ChatRequest

# ours, all of them: when equal traces are no chance any more. A judge that writes a paragraph never repeats it at a temperature; one that
# writes a line does for one item in five (measured on the embedded judge at 0.7: 6 of 32 items with 4 traces; at 0.3: 12 of 32).
LONG_REPLY = 200
MIN_ITEMS_LONG, MIN_ITEMS, MIN_ITEMS_COOL = 2, 3, 8
MIN_REPEATS = 6
COOL = 0.5


class TraceCheck:
    """Looks at the first items that are asked several times at a temperature above 0, until one is answered in two ways."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._done = False
        self._alike: list[tuple[int, int, float]] = []  # repeats, characters and temperature of each item so far

    def see(self, requests: Sequence[ChatRequest], replies: Sequence[ChatReply]) -> None:
        """Raises BackendError, with the likely cause, when everything so far was answered alike by every seed."""
        if self._done:
            return
        items: dict[tuple[object, ...], dict[int, str]] = defaultdict(dict)
        for request, reply in zip(requests, replies, strict=True):
            if request.sampling.temperature > 0 and reply.text and not reply.refused:
                parts = (part if isinstance(part, str) else id(part) for part in request.parts)
                items[(request.system, request.sampling, *parts)][request.seed] = reply.text
        with self._lock:
            for key, texts in items.items():
                if len(texts) > 1:
                    sampling = key[1]
                    self._done |= len(set(texts.values())) > 1
                    self._alike.append((len(texts) - 1, len(next(iter(texts.values()))), getattr(sampling, "temperature", 0.0)))
            if not self._done and self._is_no_chance():
                raise BackendError(self._complaint())

    def _is_no_chance(self) -> bool:
        if sum(repeats for repeats, _, _ in self._alike) < MIN_REPEATS:
            return False
        is_long = all(length >= LONG_REPLY for _, length, _ in self._alike)
        is_cool = any(temperature < COOL for _, _, temperature in self._alike)
        return len(self._alike) >= (MIN_ITEMS_LONG if is_long else MIN_ITEMS_COOL if is_cool else MIN_ITEMS)

    def _complaint(self) -> str:
        return (
            f"{self._model}: all traces of each of the first {len(self._alike)} items are equal though the temperature is above 0: K "
            "traces say what one says. Likely the server takes top_k 1 from the checkpoint's generation_config.json; start it with "
            "`vllm serve ... --generation-config vllm`, or set the option sampler to vllm. If it is meant so: check_traces=false"
        )
