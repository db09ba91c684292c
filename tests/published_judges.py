"""Folders as the projects of published judges have them, with texts of our own: what a judge reads from them, and how, is the same."""

from __future__ import annotations

from pathlib import Path

from tiny_qwen import build_tiny_qwen

REASONED = '"reasoning" : "...", "score" : [...]'

EDITSCORE_PARSER = """
import json


def mllm_output_to_dict(input_string, give_up_parsing=False, text_prompt=None, score_range=10):
    if give_up_parsing:
        raise AssertionError("a judge that gives up guesses")
    print("mending", input_string)
    return json.loads(input_string[input_string.index("{"):input_string.rindex("}") + 1])
"""

FILES = {
    "editscore": {
        "editscore/vie_prompts.py": (
            f"_context_no_delimit_reasoning_first = '''You rate pictures. Answer so: {{{REASONED}}}'''\n"
            "_prompts_0shot_two_image_edit_rule = 'Two pictures follow.'\n"
            "_prompts_0shot_tie_rule_SC = 'From 0 to 10, success and restraint.\\nEditing instruction: <instruction>\\n'\n"
            "_prompts_0shot_rule_PQ = 'From 0 to 10, naturalness and artifacts.'\n"
        ),
        "editscore/utils.py": EDITSCORE_PARSER,
    },
    "trm_edit": {
        "src/trm/prompts.py": (
            "EDIT_SYSTEM_PROMPT = 'Write a checklist, then final_score from 0 to 10, as JSON.'\n\n\n"
            "def build_edit_user_text(instruction: str) -> str:\n"
            "    return 'Source, then edit.\\n' f'Editing instruction: {instruction}\\n\\n' 'Answer with JSON.'\n"
        )
    },
    "rationalrewards": {
        "diffusion_rl_training/train_qwen_edit_rationalrewards.py": (
            "import nothing_of_this_is_run\n\n"
            "SYSTEM_PROMPT = (\n    'You rate edits. '\n    'Then you refine the request.'\n)\n"
            "TASK_RELATED_TEMPLATE = '''User Instruction: {request}\n1. Source Image <image>\n2. Edited Image <image>\nJudge them.'''\n"
            "COMMON_TASK_GUIDELINE = 'Four aspects, each with ## Score: from 1 to 4.'\n"
        )
    },
    "unifiedreward_edit": {
        "UnifiedReward-Edit/edit_pointwise_instruction_following.py": (
            "from vllm_qwen.vllm_request import evaluate_batch\n\ninstruction = ''\n"
            "problem = 'From 0 to 25, success and restraint.\\nEditing instruction:'+ f'{instruction}\\n'\n"
            "evaluate_batch([], 'http://localhost:8080')\n"
        ),
        "UnifiedReward-Edit/edit_pointwise_quality.py": "problem = 'From 0 to 25, naturalness and artifacts.'\n",
    },
    "firm_edit": {
        "editing/reward_server/prompt_template.py": (
            "SCORE_LOGIT = 'Unused {prompt} {requirement}'\n"
            "SCORE_CONSISTENCY = '''\nWas the rest kept? {prompt}\n{{\n\"score\" : [1/2/3/4/5]\n}}\n'''\n"
            "SCORE_EXECUTION = '''\nWas it done? {prompt}\n{{\n\"score\" : [1/2/3/4/5]\n}}\n'''\n"
        )
    },
    "editreward": {
        "EditReward/dataset/prompts.py": (
            "INSTRUCTION_EDIT_FOLLOWING = '''\nDoes the edit follow? 1 to 4.\nText instruction - {text_prompt}\n'''\n"
            "INSTRUCTION_EDIT_QUALITY = '''\nDoes the edit look right? 1 to 4.\nText instruction - {text_prompt}\n'''\n"
        ),
        "EditReward/dataset/data_collator_qwen_edit.py": (
            "import torch\n\nprompt_with_special_token = '''\nRate this image: <|Reward|>\n\nEND\n'''\n\n\nclass Collator:\n    pass\n"
        ),
    },
}


def published(judge: str, root: Path) -> str:
    """The folder of a judge's project below `root`, as the option `prompts` takes it."""
    for name, text in FILES[judge].items():
        path = root / judge / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return str(root / judge)


def section(title: str, score: str, number: int = 1) -> str:
    """One aspect of a reply as RationalRewards writes it."""
    return f"{number}. {title}:\n## Justification: seen.\n## Score: {score}\n"


def rationale(text: str = "4.0", image: str = "2.5", physical: str = "3.4", rendering: str = "N/A") -> str:
    """A whole reply of RationalRewards."""
    titles = ("Text Faithfulness", "Image Faithfulness", "Physical and Visual Quality", "Text Rendering")
    scores = (text, image, physical, rendering)
    body = "".join(section(title, score, number) for number, (title, score) in enumerate(zip(titles, scores, strict=True), 1))
    return f"# User Request Analysis\nMake it so.\n# Detailed Judgement\n{body}# Summary: fine\n\n# User Request Refinement:\n"


# A readable reply to every question of a judge that asks a model, and the score that it stands for.
REPLIES = {
    "editscore": ('{"reasoning": "r", "score": [20, 10]}', 4.0),
    "trm_edit": ('{"eval_points": [{"question": "q", "dimension": "d", "score": 1}], "score_reason": "r", "final_score": 8.3}', 8.3),
    "rationalrewards": (rationale(), (10 + 5 + 8) / 3),
    "firm_edit": ('{"reasoning": "r", "score": [4]}', 7.5 * (0.6 + 0.4 * 0.75)),
    "unifiedreward_edit": ('{"reasoning": "r", "score": [20, 10],}', 6.0),
}


def tiny_editreward(root: Path) -> tuple[Path, Path]:
    """(checkpoint, base): a random checkpoint of EditReward's class, with a token more, heads, and the names of older transformers."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoProcessor

    from editr1.bench.judges.editreward import new_head

    base, checkpoint = build_tiny_qwen(root / "base"), root / "checkpoint"
    checkpoint.mkdir()
    torch.manual_seed(1)
    model = AutoModel.from_pretrained(base)
    model.resize_token_embeddings(len(AutoProcessor.from_pretrained(base).tokenizer) + 1, mean_resizing=False)
    tensors = {
        f"model.{k.removeprefix('language_model.')}" if k.startswith("language_model.") else k: v for k, v in model.state_dict().items()
    }
    for number in range(2):
        tensors |= {f"rm_heads.head_{number}.{k}": v for k, v in new_head(32).state_dict().items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, checkpoint / "model.safetensors")
    return checkpoint, base
