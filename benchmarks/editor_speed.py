"""Seconds a GRPO iteration of an editor beside Flow-Factory and flow_grpo: their own code, one process, by turns.

    python benchmarks/editor_speed.py --peers PEERS --json docs/results/editor_speed.json

PEERS holds the checked-out trees `ff` (X-GenGroup/Flow-Factory) and `fg` (a fork of flow_grpo that has scripts/train_flux_kontext.py). All
train the same tiny random FLUX.1-Kontext in float32 with the same tasks, group, steps, LoRA rank and KL term, with a free reward.
Flow-Factory is driven by its GRPOTrainer's sample, prepare_feedback and optimize, on encodings made beforehand (its preprocessing crashes
for Kontext); flow_grpo by its script's main, stopped where it would evaluate. CPU seconds, so that other programs do not count. It needs
ml_collections, absl, einops and imageio; wandb is a stub.

"fast" is ours with `placement.compile` and `keep_graphs`, which change nothing but rounding: the equal settings that the goals are of. The
first iteration compiles and is not counted; its seconds, the compiler's processes included, stand beside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image

from editr1.config import Component
from editr1.editors import kontext
from editr1.flow.config import Config, Limits, Sampling, Training
from editr1.flow.contexts import Context
from editr1.flow.policy import Weights
from editr1.placement import Placement
from editr1.schema import EditTask
from editr1.stages.edit_rl import make_trainer
from editr1.store import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "editors"))
sys.path.insert(0, str(Path(__file__).parent))
import tiny_pipelines
from edit_rl_step import brightness, iteration

SIDE, GROUP, GROUPS, STEPS, WINDOW, RANK, TEXT = 64, 6, 2, 10, 2, 8, 64
GUIDANCE, LEVEL, LR, BETA = 2.5, 0.9, 1e-4, 0.04
GOALS = {"Flow-Factory": 0.7, "flow_grpo": 0.35}
PROMPTS = [f"edit {number}" for number in range(GROUPS)]


def sources() -> list[Image.Image]:
    return [Image.new("RGB", (SIDE, SIDE), (60 * number, 90, 120)) for number in range(GROUPS)]


def ours(folder: Path, same_start: bool = False, fast: bool = False) -> tuple[Callable[[], None], Callable[[], Weights]]:
    """(an iteration of edit-rl with the default window, a copy of the trained weights)."""
    folder = folder / f"ours_{same_start}_{fast}"
    run = Run.open(folder / "run")
    contexts = [Context(EditTask.make(run.images.put(image), text), (), run) for image, text in zip(sources(), PROMPTS, strict=True)]
    config = Config(
        Component("kontext"), Component("none:none"), height=SIDE, width=SIDE, group_size=GROUP, contexts=GROUPS, contexts_per_batch=1,
        sampling=Sampling(steps=STEPS, window=WINDOW, last=5, level=LEVEL, same_start=same_start), cache_encodings=True,
        training=Training(rank=RANK, alpha=2 * RANK, lr=LR, beta=BETA), limits=Limits(max_ratio_error=-1.0, max_constant=10**6),
        placement=Placement(compile=fast), keep_graphs=fast,
    )  # fmt: skip
    editor = kontext.KontextEditor(tiny_pipelines.kontext(num_layers=2, num_heads=8), guidance=GUIDANCE, text_tokens=TEXT)
    from editr1.flow.contexts import EncodingCache

    trainer = make_trainer(config, editor, [brightness], run.dir, EncodingCache(folder / "encodings", config))
    numbers = iter(range(10**6))
    return lambda: iteration(trainer, contexts, next(numbers)), trainer.state.policy.snapshot


def flow_factory(tree: Path, model: Path, folder: Path) -> Callable[[], None]:
    """An epoch of its GRPOTrainer with as many noisy steps, on encodings that lie ready as its cache has them."""
    sys.path.insert(0, str(tree / "src"))
    from flow_factory.hparams import Arguments
    from flow_factory.rewards.abc import PointwiseRewardModel, RewardModelOutput
    from flow_factory.trainers.abc import BaseTrainer
    from flow_factory.trainers.loader import load_trainer

    class Brightness(PointwiseRewardModel):
        required_fields = ("prompt", "image")

        def __call__(self, prompt: Any, image: Any = None, **_: Any) -> Any:
            return RewardModelOutput(
                rewards=torch.tensor([float(picture.convert("L").resize((1, 1)).getpixel((0, 0))) for picture in image])
            )

    sys.modules["free_reward"] = types.ModuleType("free_reward")
    sys.modules["free_reward"].Brightness = Brightness  # type: ignore[attr-defined]
    config = Arguments.from_dict(
        {
            "launcher": "accelerate", "mixed_precision": "no", "num_processes": 1,
            "data": {"dataset_dir": str(folder), "sampler_type": "group_contiguous", "enable_preprocess": False},
            "model": {
                "finetune_type": "lora", "lora_rank": RANK, "lora_alpha": 2 * RANK, "target_modules": "default",
                "model_name_or_path": str(model), "model_type": "flux1-kontext", "master_weight_dtype": "float32",
            },
            "log": {"run_name": "speed", "logging_backend": "none", "save_dir": str(folder), "save_freq": 0, "verbose": False},
            "train": {
                "trainer_type": "grpo", "clip_range": 1e-4, "kl_type": "v-based", "kl_beta": BETA, "ref_param_device": "cpu",
                "resolution": SIDE, "condition_image_size": SIDE, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE,
                "per_device_batch_size": GROUP, "group_size": GROUP, "unique_sample_num_per_epoch": GROUPS, "global_std": False,
                "gradient_step_per_epoch": 1, "learning_rate": LR, "ema_decay": 0.9, "ema_device": "cpu", "seed": 0,
            },
            "scheduler": {"dynamics_type": "Flow-SDE", "noise_level": LEVEL, "num_sde_steps": WINDOW, "sde_steps": [0, 1, 2, 3, 4]},
            "eval": {"eval_freq": 0, "resolution": SIDE},
            "rewards": [{"name": "free", "reward_model": "free_reward.Brightness", "batch_size": GROUP, "device": "cpu"}],
        }
    )  # fmt: skip

    def batches(trainer: Any) -> tuple[Any, None]:
        found = []
        for image, text in zip(sources(), PROMPTS, strict=True):
            words = trainer.adapter.encode_prompt([text] * GROUP, max_sequence_length=TEXT)
            pictures = trainer.adapter.encode_image([image] * GROUP, condition_image_size=SIDE)
            found.append({"prompt": [text] * GROUP, **words, **pictures})
        return found, None

    BaseTrainer._init_dataloader = batches
    trainer = load_trainer(config)
    trainer.autocast = contextlib.nullcontext  # else bfloat16, whatever mixed_precision says

    def epoch() -> None:
        trainer.adapter.scheduler.set_seed(trainer.epoch + trainer.training_args.seed)
        samples = trainer.sample()
        trainer.prepare_feedback(samples)
        trainer.optimize(samples)
        trainer.adapter.ema_step(step=trainer.epoch)
        trainer.epoch += 1

    return epoch


def flow_grpo(tree: Path, model: Path, folder: Path) -> Callable[[], None]:
    """An epoch of its script: all steps noisy, all but the last trained. Its main runs in a thread that waits where it would evaluate."""
    import ml_collections
    import peft
    import transformers

    stub: Any = types.ModuleType("wandb")
    stub.init = stub.log = stub.Image = lambda *_, **__: None
    sys.modules["wandb"] = stub
    sys.path[:0] = [str(tree), str(tree / "scripts")]
    import flow_grpo.rewards as rewards
    import train_flux_kontext as script

    peft.PeftModel.module = property(lambda self: self)  # it expects DDP
    rows = [{"prompt": text, "image": f"{number}.png"} for number, text in enumerate(PROMPTS)]
    for number, image in enumerate(sources()):
        image.save(folder / f"{number}.png")
    for split in ("train", "test"):
        (folder / f"{split}_metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def free(device: Any, config: Any) -> Any:
        return lambda images, *_, **__: ({"avg": images.float().mean((1, 2, 3)).cpu().numpy()}, {})

    rewards.multi_score = free
    decode = transformers.CLIPTokenizer.batch_decode  # of today's transformers, which takes no floats
    transformers.CLIPTokenizer.batch_decode = lambda self, ids, **options: decode(self, ids.astype(int).tolist(), **options)
    words = script.compute_text_embeddings
    script.compute_text_embeddings = lambda *args, max_sequence_length, device: words(*args, max_sequence_length=TEXT, device=device)
    lora = script.LoraConfig
    script.LoraConfig = lambda **options: lora(**(options | {"r": RANK, "lora_alpha": 2 * RANK}))
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def gate(*_: Any) -> None:
        done.release()
        go.acquire()

    script.eval = gate
    config = ml_collections.ConfigDict(
        {
            "run_name": "speed", "seed": 0, "logdir": str(folder), "save_dir": str(folder), "num_checkpoint_limit": 1,
            "mixed_precision": "no", "allow_tf32": False, "use_lora": True, "dataset": str(folder), "resolution": SIDE,
            "per_prompt_stat_tracking": True,
            "eval_freq": 1, "save_freq": 10**9, "reward_fn": {"free": 1.0}, "pretrained": {"model": str(model)},
            "sample": {
                "num_steps": STEPS, "guidance_scale": GUIDANCE, "train_batch_size": GROUP, "num_image_per_prompt": GROUP,
                "test_batch_size": 1, "num_batches_per_epoch": GROUPS, "same_latent": False, "global_std": False, "noise_level": LEVEL,
            },
            "train": {
                "batch_size": GROUP, "gradient_accumulation_steps": GROUPS, "num_inner_epochs": 1, "timestep_fraction": 0.99, "beta": BETA,
                "learning_rate": LR, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_weight_decay": 1e-4, "adam_epsilon": 1e-8,
                "adv_clip_max": 5, "clip_range": 1e-4, "max_grad_norm": 1.0, "ema": True, "lora_path": None, "use_8bit_adam": False,
            },
        }
    )  # fmt: skip
    script.FLAGS = types.SimpleNamespace(config=config)
    script.save_ckpt = lambda *_: None
    failed: list[BaseException] = []

    def run() -> None:
        try:
            script.main(None)
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
            failed.append(error)
            done.release()

    threading.Thread(target=run, daemon=True).start()
    done.acquire()

    def epoch() -> None:
        go.release()
        done.acquire()
        if failed:
            raise RuntimeError("flow_grpo's main ended") from failed[0]

    return epoch


def seconds_of_children() -> float:
    """CPU seconds of all processes that this one has waited for: the compiler's."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def norm(weights: Weights) -> float:
    """Of all tensors together."""
    return float(torch.stack([value.norm() for value in weights.values()]).norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--peer", nargs="+", choices=list(GOALS), default=list(GOALS), help="beside which ours runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        tiny_pipelines.kontext(num_layers=2, num_heads=8).save_pretrained(model)
        (folder / "data").mkdir()
        own = {
            "ours": ours(folder),
            "ours, fast": ours(folder, fast=True),
            "ours, shared start": ours(folder, same_start=True),
        }
        start = own["ours"][1]()
        loops = {name: loop for name, (loop, _) in own.items()}
        if "Flow-Factory" in args.peer:
            loops["Flow-Factory"] = flow_factory(args.peers / "ff", model, folder / "data")
        if "flow_grpo" in args.peer:
            loops["flow_grpo"] = flow_grpo(args.peers / "fg", model, folder / "data")
        times: dict[str, list[float]] = {name: [] for name in loops}
        first: dict[str, float] = {}
        for repeat in range(args.repeats + 1):
            for name, loop in loops.items():
                begin, children = time.process_time(), seconds_of_children()
                loop()
                spent = time.process_time() - begin
                if repeat:  # the first one encodes, compiles and warms up
                    times[name].append(spent)
                else:
                    first[name] = spent + seconds_of_children() - children
        plain, quick = own["ours"][1](), own["ours, fast"][1]()
        moved = norm({name: plain[name] - start[name] for name in plain})
        apart = norm({name: quick[name] - plain[name] for name in plain}) / moved
    middle = {name: median(found) for name, found in times.items()}
    print("| loop | CPU seconds an iteration (median, range) |\n|---|---|")
    for name, found in times.items():
        print(f"| {name} | {middle[name]:.2f} ({min(found):.2f} to {max(found):.2f}) |")
    print(f"first iteration of ours, fast: {first['ours, fast']:.0f} CPU seconds; at the end its weights are {apart:.1e} of their way off")
    ratios = {
        f"{name} over {peer}": median(a / b for a, b in zip(times[name], times[peer], strict=True)) for name in own for peer in args.peer
    }
    result = {
        "what": "seconds of an iteration at equal learning settings over a peer's, compiled and with kept graphs",
        "value": ratios[f"ours, fast over {args.peer[0]}"],
        "n": args.repeats, "goal": " and ".join(f"at most {GOALS[peer]} x {peer}" for peer in args.peer),
        "holds": all(ratios[f"ours, fast over {peer}"] <= GOALS[peer] for peer in args.peer),
        "ratios": ratios, "seconds": times, "first_seconds": first, "weights_apart": apart,
    }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
