"""One small file or folder of every stored format, in the layout that its project writes."""

from __future__ import annotations

import json
from typing import Any

KRIS_MARKS = {
    "1": {"instruction": "i", "consistency_score": 4, "instruction_score": 5, "quality_score": 3, "knowledge_score": 2},
    "2": {"instruction": "i", "consistency_score": 5, "instruction_score": 5, "quality_score": 5, "knowledge_score": None},
}
RISE_HEAD = "index,category,subtask,consistency_free,Reasoning,ApprConsistency,VisualPlausibility,score\n"
RISE_LINES = (
    "t1,temporal_reasoning,Life,,5,5,5,5.0\n"
    "t2,temporal_reasoning,Life,,1,5,4,\n"
    "l1,logical_reasoning,Puzzle,,5,1,,\n"
    "c1,causal_reasoning,State,1.0,5,,4,\n"
    "s1,spatial_reasoning,Layout,,,5,4,\n"
)
MMRB2_PAIRS = {
    "pairs": [
        {
            **{"id": f"p{i}", "prompt_content": [["image", "s.png"], ["text", f"edit {i}"]], "chosen": chosen, "human_annotations": [5]},
            **{side: {"response_content": [["image", "a.png"]]} for side in ("response_a", "response_b")},
        }
        for i, chosen in enumerate("AAB")
    ]
}
MMRB2_SAID = {
    "p0": {"forward": [{"judgement": "A"}], "reverse": [{"judgement": "B"}]},  # right twice
    "p1": {"forward": [{"judgement": "A"}], "reverse": [{"judgement": "A"}]},  # always the first
    "p2": {"forward": [{"judgement": None}], "reverse": []},
}
LMMS_GEDIT = [
    {
        "doc_id": i,
        **{
            f"gedit_bench_{aspect}_score": {
                **{"key": f"k{i}", "task_type": "ps_human", "instruction_language": "en", "score": score, "intersection_exist": True}
            }
            for aspect, score in (("semantics", semantic), ("quality", quality), ("overall", (semantic * quality) ** 0.5))
        },
    }
    for i, (semantic, quality) in enumerate([(8.0, 2.0), (0.0, 9.0), (0.0, 0.0)])
]
LMMS_IMGEDIT = [
    {"doc_id": i, **{f"imgedit_score{n + 1}": {"key": f"k{i}", "edit_type": kind, "score": marks[n]} for n in range(3)}}
    for i, (kind, marks) in enumerate([("add", (4.0, 5.0, 3.0)), ("style", (2.0, 2.0, 2.0)), ("style", (0.0, 0.0, 0.0))])
]
LMMS_KRIS = [
    {
        "doc_id": i,
        **{
            f"kris_bench_{aspect}_score": {"category": "biology", "image_id": str(i), "score": mark, "valid": mark > 0}
            for aspect, mark in zip(("consistency", "instruction", "quality", "knowledge"), marks, strict=True)
        },
    }
    for i, marks in enumerate([(4.0, 5.0, 3.0, 2.0), (-1.0, -1.0, -1.0, -1.0)])
]
EVALSCOPE = [
    {
        "index": 0,
        "sample_score": {"score": {"value": {"semantic_consistency": 9.0, "perceptual_similarity": 4.0, "normalized_score": 6.0}}},
    },
    {"index": 1, "sample_score": {"score": {"value": {}, "status": "judge_error"}, "sample_id": 7}},
]
TABLE = "key,cluster,category,value,human\na,s1,add,7.5,3\nb,s1,add,2,1\nc,s2,remove,6,2\nd,s2,remove,6,1\ne,s2,remove,,2\n"
RATERS = ["uid\tx\ty\nsample_1_1.jpg\t[1, 0.5]\t[0, 0]\nsample_2_1.jpg\t[0.5, 0.5]\t[1, 1]\n"] * 2
COMPASS = [
    {"source_image": "s.png", "prompt": "p", "winner": "w.png", "loser": "l.png", "label": label, "dimension": dimension}
    for label, dimension in (("preference", "IA"), ("tie", "IA"), ("preference", "VQ"))
]


def lines(rows: list[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
