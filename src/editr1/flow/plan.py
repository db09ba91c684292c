"""What a run will cost, from its recipe alone: no weight is loaded.

Counts are exact; seconds and gigabytes are estimates from the two constants below, and say so.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass

from editr1.algorithms.base import Needs
from editr1.config import Component, create, load
from editr1.editors.base import Footprint
from editr1.flow.config import Config
from editr1.flow.update import rows_per_sample
from editr1.memory import GIB, Layout, Memory, Transformer, activations, states, this_launch
from editr1.objectives.schedule import Schedule
from editr1.objectives.sde import clip_in_nats, kl_weight, make_step

ASSUMED_FLOPS = 4e14  # ours: dense bf16 on an H100-class card at about 40 % of its peak
VELOCITY_BETA = "the same beta weighs far more here, values near 1e-3 are usual (training.kl: velocity)"
BACKWARD_COST = 2.0  # a backward costs two forwards; one more forward with gradient checkpointing


@dataclass(frozen=True)
class Evaluations:
    """Model evaluations of one iteration, over all processes."""

    rollout: int
    trained: int
    """Forwards with a backward."""
    reference: int
    """Passes of others: the policy at the start, the slow policy, a teacher."""

    @property
    def forward_equivalents(self) -> float:
        """Everything in units of one forward, without checkpointing."""
        return self.rollout + self.reference + self.trained * (1.0 + BACKWARD_COST)

    def per_trained_sample(self, num_samples: int) -> float:
        """Model evaluations (backwards not counted) a sample."""
        return (self.rollout + self.trained + self.reference) / num_samples


def needs_of(config: Config) -> Needs:
    """What the run's algorithm asks for."""
    needs: Needs = create("algorithms", config.training.algorithm).needs
    return needs


def count_evaluations(config: Config, forwards: int = 1) -> Evaluations:
    """Upper bound: zero-advantage samples are skipped when beta = 0. With a shared start, the mean over the places of the window.

    >>> from editr1.config import Component
    >>> count_evaluations(Config(Component("kontext"), Component("rrm")))
    Evaluations(rollout=11520, trained=2304, reference=2304)
    """
    needs = needs_of(config)
    groups, sampling, training = config.contexts * forwards, config.sampling, config.training
    samples = groups * config.group_size
    rows = groups * (needs.samples_per_group or config.group_size) * rows_per_sample(config, needs)
    rollout = samples * sampling.steps if config.source == "rollout" and config.rollout is None else 0
    if sampling.same_start:
        last_start = sampling.first if sampling.window_kind == "fixed" else sampling.last - sampling.window
        once = (sampling.first + last_start) / 2 + 1  # steps up to the first noisy one, which all members take from the same point
        rollout -= round((samples - groups) * once)
        rows -= samples - groups
    if needs.noisy:  # a forward in the rollout's shape is made by each update that learns from one of its groups
        rows *= min(training.updates_per_rollout, -(-_rows_together(config, needs) // config.group_size))
    if config.keep_graphs:
        rollout -= rows  # sampled and trained in one
    passes = rows * needs.passes(training.beta > 0)
    if (teacher := _teacher(config)) is not None:  # with guidance it may cost more than the student
        passes += rows // forwards * (teacher.forwards_per_velocity - forwards)
    return Evaluations(rollout, rows, passes)


def describe_plan(config: Config) -> list[str]:
    """One line a topic: sizes, evaluations, time and memory, clip in nats, KL conversions."""
    footprint = read_footprint(config)
    lines = [_algorithm_line(config), *_curation_lines(config)]
    if footprint is None:
        lines.append(f"editor {config.editor.id}: states no footprint, so no token counts and no estimate of time and memory")
        return [*lines, _evaluations_line(config, 1)]
    elements = footprint.plan.num_tokens * footprint.plan.channels
    lines += [
        _sizes_line(footprint),
        _evaluations_line(config, footprint.forwards_per_velocity),
        *_cost_lines(config, footprint),
    ]
    if needs_of(config).clip is not None:
        lines.append(_clip_line(config, elements))
    return [*lines, *_kl_lines(config, footprint.sigmas)]


def read_footprint(config: Config, editor: Component | None = None) -> Footprint | None:
    """What an adapter's file says about its size, when it says it; of another editor than the trained one, where it is named."""
    editor = editor or config.editor
    module = importlib.import_module(load("editors", editor.id).__module__)
    footprint = getattr(module, "footprint", None)
    return footprint(config.height, config.width, config.sampling.steps, editor.options) if footprint else None


def _teacher(config: Config) -> Footprint | None:
    """Of the editor that a distilling algorithm learns from."""
    teacher = needs_of(config).teacher
    return None if teacher is None else read_footprint(config, teacher)


def _algorithm_line(config: Config) -> str:
    t, s = config.training, config.sampling
    what = f"LoRA r={t.rank} alpha={t.alpha}" if t.weights == "lora" else "all weights"
    window = f"{s.window} noisy steps in [{s.first}, {s.last}) of {s.steps}, {s.kind} a={s.level:g}"
    if not needs_of(config).noisy:
        window = "people's pairs" if config.source == "pairs" else f"{s.steps} ODE steps" + (" by a server" if config.rollout else "")
    return (
        f"{t.algorithm.id}: {config.iterations} iterations of {config.contexts} groups x {config.group_size} edits; {window}; {what}, "
        f"lr {t.lr:g}, {t.updates_per_rollout} update(s) a rollout"
    )


def _curation_lines(config: Config) -> list[str]:
    """What it samples and judges beyond the counts of an iteration."""
    c, steps = config.curation, config.evaluation.steps
    lines = [f"curation: before training every task is edited {c.first_pass} time(s), {steps} steps each, and judged"] * (c.first_pass > 0)
    more = f"curation: groups that teach nothing are drawn anew, up to {c.redraw} time(s) what an iteration samples and judges"
    return [*lines, more] if c.redraw else lines


def _sizes_line(f: Footprint) -> str:
    total = f.plan.num_tokens + f.num_condition_tokens + f.num_text_tokens
    return (
        f"sizes: {f.plan.width} x {f.plan.height} px; tokens: {f.plan.num_tokens} target + {f.num_condition_tokens} source + up to "
        f"{f.num_text_tokens} text = {total}; {f.plan.num_tokens * f.plan.channels} latent elements"
    )


def _evaluations_line(config: Config, forwards: int) -> str:
    counts = count_evaluations(config, forwards)
    samples = config.contexts * config.group_size
    made = f"decodes and judged edits: {samples}"
    if config.source == "pairs":
        made = f"people's edits encoded: {samples}, none judged"
    elif config.rollout is not None:
        made = f"a server's edits encoded and judged: {samples}"
    return (
        f"model evaluations an iteration: {counts.rollout} sampling + {counts.trained} trained + {counts.reference} reference = "
        f"{counts.per_trained_sample(samples):.3g} a sample; encodes: {config.contexts}; {made}"
    )


def _cost_lines(config: Config, f: Footprint) -> list[str]:
    """Transformers cost 2 FLOP a parameter and token; attention's quadratic part is left out (below 10 % up to 4k tokens)."""
    tokens = f.plan.num_tokens + f.num_condition_tokens + f.num_text_tokens
    counts = count_evaluations(config, f.forwards_per_velocity)
    checkpointing = counts.trained if config.training.gradient_checkpointing else 0
    forwards = counts.forward_equivalents + checkpointing
    if (teacher := _teacher(config)) is not None:  # its passes in the student's
        taught = counts.trained // f.forwards_per_velocity * teacher.forwards_per_velocity
        forwards += taught * (teacher.num_parameters / f.num_parameters - 1.0)
    hours = forwards * 2.0 * f.num_parameters * tokens / ASSUMED_FLOPS / 3600.0
    processes = this_launch().processes
    whole = hours * config.iterations
    return [
        f"estimate: {hours:.2g} GPU-hours an iteration at {ASSUMED_FLOPS:.0e} FLOP/s without judge and evaluations; the run: {whole:.3g} "
        f"GPU-hours, {whole / processes:.3g} hours on {processes} card(s)",
        f"memory: {_memory(config, f)}",
    ]


def memory_of(config: Config) -> Memory | None:
    """What a card holds at the peak of an iteration, by part; None for editors that state no footprint. The judge is not counted."""
    footprint = read_footprint(config)
    return None if footprint is None else _memory(config, footprint)


def _memory(config: Config, f: Footprint) -> Memory:
    t, s = config.training, config.sampling
    launch = this_launch()
    lora = t.weights == "lora"
    # attention's four projections in and out, and feed-forward layers four times as wide
    trained = f.num_layers * 18.0 * t.rank * f.hidden if lora else f.num_parameters
    needs = needs_of(config)
    copies = (t.ema_decay > 0) + (needs.old_decay is not None) + config.rollout_ahead
    layout = Layout(launch.processes, t.shard)
    swapped = 0 if lora else (t.beta > 0 or needs.reference) + (needs.old_decay is not None)  # weights that take the trained ones' place
    reference = 2.0 * swapped * f.num_parameters / GIB / layout.shards
    gathered = 2.0 * f.num_parameters / GIB if t.zero == 2 else 0.0  # beside the parts
    encoders = 0.0 if config.cache_encodings else f.num_encoder_parameters
    base = states(f.num_parameters if lora else 0.0, 0.0, layout).weights
    beside = encoders + f.num_vae_parameters
    if (teacher := _teacher(config)) is not None:
        beside += teacher.num_parameters + teacher.num_encoder_parameters + teacher.num_vae_parameters
    beside = states(beside, 0.0, Layout()).weights
    moved = states(
        0.0, trained, Layout() if lora else layout, trained_bytes=4 + 2 + 4 * copies
    )  # masters, rounded working weights, averages
    rows = _rows_together(config, needs)
    waiting = max(0, count_evaluations(config).trained // launch.processes - rows) if config.keep_graphs else 0
    tokens = f.plan.num_tokens + f.num_condition_tokens + f.num_text_tokens
    size = Transformer(f.num_parameters, f.num_layers, f.hidden)
    kept_rows = activations(
        size, rows * f.forwards_per_velocity, tokens, t.gradient_checkpointing, waiting=waiting * f.forwards_per_velocity
    )
    bytes_kept = 4.0  # the finished edit; in a window its latents, and where several updates are made of it its means
    if needs.noisy:
        bytes_kept += (s.window + 1) * (4 if s.storage == "float32" else 2) + 4 * s.window * (needs.means and not config.on_policy)
    kept = config.group_size * config.contexts / launch.processes * (1 + config.rollout_ahead)
    latents = kept * bytes_kept * f.plan.num_tokens * f.plan.channels / GIB
    return dataclasses.replace(
        moved,
        weights=base + beside + moved.weights + reference + gathered,
        activations=kept_rows + latents,
    )


def _rows_together(config: Config, needs: Needs) -> int:
    """The most rows of one forward with a gradient."""
    groups = config.contexts_per_batch
    size = config.training.micro_batch or groups * config.group_size
    if not needs.groups:
        return min(size, groups * config.group_size)
    members = needs.samples_per_group or config.group_size  # a group is never cut
    return members * min(groups, max(1, size // members))


def _clip_line(config: Config, elements: int) -> str:
    algorithm = create("algorithms", config.training.algorithm)
    clip = f"clip: -{algorithm.clip_low:g} / +{algorithm.clip_high:g} per element"
    if config.sampling.log_prob == "squared_error":
        return f"{clip} of the squared error, which is no density: not comparable with clip ranges in nats"
    low, high = (clip_in_nats(c, elements) for c in (algorithm.clip_low, algorithm.clip_high))
    return f"{clip} = {low:.3g} / {high:.3g} nats a step"


def _kl_lines(config: Config, sigmas: tuple[float, ...]) -> list[str]:
    """What one unit of mean||v - v_ref||^2 weighs under each convention, so that a beta can be carried over."""
    t, s = config.training, config.sampling
    if t.beta == 0:
        return ["KL: off (beta = 0)"]
    if not needs_of(config).noisy:
        return [f"KL: beta = {t.beta:g} on the velocity" + ("" if t.kl == "velocity" else f": {t.kl} weighs noisy steps; {VELOCITY_BETA}")]
    schedule = Schedule(sigmas)
    lines = [f"KL: beta = {t.beta:g} in the convention {t.kl}; weight of mean||dv||^2 at each step that may be noisy:"]
    for index in range(s.first, s.first + s.window if s.window_kind == "fixed" else s.last):
        step = make_step(s.kind, *schedule.pair(index), s.level, schedule.sigmas[1])
        weights = ", ".join(f"{kind} {kl_weight(kind, step):.3g}" for kind in ("latent_dtfree", "latent_true", "velocity"))
        lines.append(f"KL: step {index} (sigma {schedule.sigmas[index]:.3f}): {weights}")
    return lines
