"""What a trained judge said about the run's candidates, kept for people: `10_traces/<judge>.jsonl`, read by the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from editr1.schema import Trace, to_json
from editr1.store import Run

FOLDER = "10_traces"


def write_judge_traces(run: Run, judge: str, traces: Mapping[str, Trace]) -> None:
    """Writes one trace a candidate id, in the order given; an earlier file of the same judge is replaced."""
    folder = run.dir / FOLDER
    folder.mkdir(exist_ok=True)
    lines = [to_json(replace(trace, quadruple_id=candidate_id, seconds=0.0)) for candidate_id, trace in traces.items()]
    (folder / f"{judge.replace('/', '_')}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
