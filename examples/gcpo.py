"""GCPO of a verifier on one screen (arXiv 2604.27505, section 3.2): plain torch and the embedded world's small Qwen2.5-VL.

People preferred edit w to edit l. The verifier samples N traces of each, and Phi reads a score tau out of a trace. A trace is rewarded
by the traces of the *other* edit and compared with those of its *own*, so that pairs teach a judge of single edits:

    r_w[j] = (1/N) sum_k 1{tau_w[j] > tau_l[k]},   r_l[j] = (1/N) sum_k 1{tau_l[j] < tau_w[k]}                  (1)
    A[j] = r[j] - mean r, inside the N traces of one edit; no std                                              (2)
    loss = -mean over traces, and over the tokens of each, of  min(rho A, clip(rho, 1 - eps, 1 + eps) A)       (3)

with rho = p(token) / p_old(token), and no KL term. ours: a trace that Phi cannot read wins nothing and is no opponent.
    python examples/gcpo.py           # half a minute on one core; --tiny takes seconds
A cold start on scores comes first: the shipped verifier sees and does not score. `editr1 sft` and `gcpo` do the same for real models.
"""

import argparse

import torch
from torch import Tensor

from editr1.editors.base import EditRequest
from editr1.judge.parse import parse
from editr1.judge.prompts import render_score
from editr1.vlm.base import ChatRequest, request_images, to_messages
from editr1.world.oracle import judge
from editr1.world.procedural_editors import ProceduralEditor
from editr1.world.tasks import TaskSource
from editr1.world.tiny_vlm import SPECIAL, WEIGHTS, Qwen2_5_VLForConditionalGeneration, new_processor

CLIP, MAX_TOKENS, NAN = 0.2, 6, float("nan")
PROCESSOR = new_processor()
FORBIDDEN = [i for i in map(PROCESSOR.tokenizer.convert_tokens_to_ids, SPECIAL) if i != PROCESSOR.tokenizer.eos_token_id]


def ratios(tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
    """Equation 1, a row a pair. nan = not read: it compares false, and is not counted among the opponents."""
    won_PNN = (tau_w_PN[:, :, None] > tau_l_PN[:, None, :]).float()
    num_w, num_l = ((~tau.isnan()).sum(1, keepdim=True).clamp(min=1) for tau in (tau_w_PN, tau_l_PN))
    return won_PNN.sum(2) / num_l, won_PNN.sum(1) / num_w


def advantages(ratio_PN: Tensor) -> Tensor:
    """Equation 2."""
    return ratio_PN - ratio_PN.mean(1, keepdim=True)


def gcpo_loss(logp_GT: Tensor, old_logp_GT: Tensor, A_G: Tensor, mask_GT: Tensor) -> Tensor:
    """Equation 3 for G traces of at most T tokens; mask 0 = padding."""
    rho = (logp_GT - old_logp_GT).exp()
    gain = torch.minimum(rho * A_G[:, None], rho.clamp(1 - CLIP, 1 + CLIP) * A_G[:, None])
    return -((gain * mask_GT).sum(1) / mask_GT.sum(1)).mean()


def encode(requests: list[ChatRequest]) -> dict[str, Tensor]:
    """What the model reads: one row a request, two pictures each."""
    text = PROCESSOR.apply_chat_template([to_messages(r) for r in requests], add_generation_prompt=True, tokenize=False)
    return dict(PROCESSOR(images=[request_images(r) for r in requests], text=text, padding=True, return_tensors="pt"))


def log_probs(model: torch.nn.Module, inputs: dict[str, Tensor], ids_GT: Tensor, mask_GT: Tensor) -> Tensor:
    """log p of the tokens of each trace after its prompt, [G, T]."""
    both = {"input_ids": ids_GT, "attention_mask": mask_GT, "mm_token_type_ids": 0 * mask_GT}
    logits = model(**inputs | {name: torch.cat([inputs[name], x], 1) for name, x in both.items()}).logits
    logits = logits[:, -ids_GT.shape[1] - 1 : -1].index_fill(2, torch.tensor(FORBIDDEN), -torch.inf)  # what sampling cannot choose
    return logits.log_softmax(2).gather(2, ids_GT[:, :, None])[:, :, 0].masked_fill(mask_GT == 0, 0)


def sample(model: torch.nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[str]]:
    """(token ids, mask up to the end token, text) of a trace a row."""
    made = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=MAX_TOKENS, suppress_tokens=FORBIDDEN)
    ids = made[:, inputs["input_ids"].shape[1] :]
    ended = (ids == PROCESSOR.tokenizer.eos_token_id).long()
    return ids, (ended.cumsum(1) == ended).long(), PROCESSOR.batch_decode(ids, skip_special_tokens=True)


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def edits(seed: int, num: int) -> list[tuple[ChatRequest, float]]:
    """`num` pairs of edits with what they are worth, 0 to 10, each pair's better one first."""
    editor, found = ProceduralEditor("steady"), []
    for i, task in enumerate(TaskSource(4 * num, seed)):
        made = editor.edit([EditRequest(task.image, task.instruction, seed=2 * i + k) for k in (0, 1)])
        worth = [score.utility for score in judge([task.image] * 2, made, [task.instruction] * 2)]
        asked = [render_score("compact_direct", task.image, edit, task.instruction, ()) for edit in made]
        found += sorted(zip(asked, worth, strict=True), key=lambda pair: -pair[1]) if worth[0] != worth[1] else []
    return found[: 2 * num]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="a few steps")
    lessons, steps, num_pairs, num = (2, 2, 2, 3) if parser.parse_args().tiny else (60, 24, 3, 8)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS)
    model.model.visual.requires_grad_(False)
    school, optimizer = edits(seed=2, num=32), torch.optim.AdamW(model.parameters(), lr=1e-3)
    for i in range(lessons):  # the cold start: -log p of the right score
        asked, worth = zip(*(school[j % 64] for j in range(8 * i, 8 * i + 8)), strict=True)
        text = [f"<score>{tau}</score><|im_end|>" for tau in worth]
        answer = PROCESSOR.tokenizer(text, padding=True, padding_side="right", return_tensors="pt")
        step(model, optimizer, -log_probs(model, encode(list(asked)), answer.input_ids, answer.attention_mask).sum(1).mean())
    pairs, optimizer = edits(seed=1, num=num_pairs), torch.optim.AdamW(model.parameters(), lr=1e-3)  # few, so that ratios rise
    inputs = encode([request for request, _ in pairs for _ in range(num)])
    for i in range(steps):
        ids, mask, texts = sample(model, inputs)
        tau = [getattr(parse(text, 0, needs_verdicts=False), "score", NAN) for text in texts]  # Phi; a ParseFailure has no score
        tau_P2N = torch.tensor(tau).view(num_pairs, 2, num)
        r_P2N = torch.stack(ratios(tau_P2N[:, 0], tau_P2N[:, 1]), 1)
        logp = log_probs(model, inputs, ids, mask)  # one step a batch of traces: rho is 1, and its gradient is not 0
        step(model, optimizer, gcpo_loss(logp, logp.detach(), advantages(r_P2N.flatten(0, 1)).flatten(), mask))
        print(f"step {i}: mean ratio {r_P2N.mean():.3f}, {1 - tau_P2N.isnan().float().mean():.0%} of the traces read")


if __name__ == "__main__":
    main()
