"""The embedded world: pictures and words carry the same truth in both directions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.editors.base import EditRequest
from editr1.schema import Principle
from editr1.vlm.base import ChatRequest, PromptContext
from editr1.world import oracle
from editr1.world.annotators import CHARACTERS, Annotator, Character, Decomposer, HumanPairs, biased_verdicts
from editr1.world.oracle import Check, Observation, principles_for, truth_of
from editr1.world.procedural_editors import PIXEL_FAILURES, PROFILES, SCENE_FAILURES, ProceduralEditor, border, flawed_edit
from editr1.world.scene import CELLS, CONTENTS, GLOBALS, Scene, Thing, pick, random_scene, read, read_one, render, to_pixels
from editr1.world.tasks import KINDS, TaskSource, apply_all, instruction, parse_instruction, random_edits

SEEDS = st.integers(0, 2**31 - 1)


def a_task(seed: int, compound: bool = False):
    rng = np.random.default_rng(seed)
    while True:
        scene = random_scene(rng)
        edits = random_edits(rng, scene, pick(rng, KINDS), compound)
        if edits is not None:
            return rng, scene, edits


def test_every_content_is_read_back_under_every_look():
    for look in GLOBALS:
        scenes = [Scene(*look, tuple(CONTENTS[(start + i) % len(CONTENTS)] for i in range(9))) for start in range(0, len(CONTENTS), 9)]
        found, error = read(np.stack([to_pixels(render(scene)) for scene in scenes]))
        assert found == scenes
        assert error.max() < 0.01


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_an_instruction_means_the_edits_it_was_written_for(seed, compound):
    _, scene, edits = a_task(seed, compound)
    assert parse_instruction(scene, instruction(scene, edits)) == edits


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_a_perfect_edit_passes_everything_and_the_untouched_source_is_worth_nothing(seed, compound):
    _, scene, edits = a_task(seed, compound)
    source, text = render(scene), instruction(scene, edits)
    perfect, untouched = oracle.judge([source] * 2, [render(apply_all(scene, edits)), source], [text] * 2)
    assert (perfect.utility, perfect.success) == (10.0, True)
    assert (untouched.utility, untouched.success) == (0.0, False)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_principle_means_the_check_it_was_written_for(seed):
    rng, scene, edits = a_task(seed)
    for principle in principles_for(truth_of(scene, edits), rng):
        assert Check.from_question(principle.question).question == principle.question
    categories = [principle.category for principle in principles_for(truth_of(scene, edits), rng)]
    assert categories == sorted(categories, key=("follow", "keep", "quality").index)


@pytest.mark.parametrize("name", sorted({*SCENE_FAILURES, *PIXEL_FAILURES}))
def test_a_failure_is_never_a_success(name):
    worse, tried = 0, 0
    for seed in range(150):
        rng, scene, edits = a_task(seed)
        image = flawed_edit(rng, scene, edits, {name: 1.0}, 1)
        if image.tobytes() == render(apply_all(scene, edits)).tobytes():
            continue  # the failure does not apply to this task
        tried += 1
        worse += not oracle.judge([render(scene)], [image], [instruction(scene, edits)])[0].success
    assert tried > 5
    assert worse >= 0.9 * tried  # a blurred picture of next to nothing may pass for a clean one


def test_a_white_border_is_worth_nothing():
    rng, scene, edits = a_task(3)
    framed = border(rng, render(apply_all(scene, edits)))
    assert oracle.judge([render(scene)], [framed], [instruction(scene, edits)])[0].utility == 0.0


def test_tasks_are_a_function_of_seed_and_index():
    source = TaskSource(5, seed=3)
    again = list(TaskSource(2, seed=3))
    assert [(t.instruction, t.image.tobytes()) for t in list(source)[:2]] == [(t.instruction, t.image.tobytes()) for t in again]
    assert {t.instruction for t in TaskSource(5, seed=4)} != {t.instruction for t in source}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_equal_requests_give_equal_edits(profile):
    task = TaskSource(1, seed=1).task(0)
    editor = ProceduralEditor(profile)
    first, again = editor.edit([EditRequest(task.image, task.instruction, 5)] * 2)
    assert first.tobytes() == again.tobytes()


def test_the_inspected_aspects_decide_what_an_annotator_passes():
    seen = Observation(read_one(render(random_scene(np.random.default_rng(0)))).put("top", Thing("red", "circle", "striped")))
    leaked = Principle("Is the top a blue striped circle?", "keep")
    rng = np.random.default_rng(0)
    passed = np.mean([biased_verdicts(rng, Character(passes_leaks=0.5, slips=0), seen, [leaked])[0] for _ in range(2000)])
    assert abs(passed - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert not any(biased_verdicts(rng, Character(slips=0), seen, [leaked])[0] for _ in range(100))


@pytest.mark.parametrize("character", sorted(CHARACTERS))
def test_an_annotators_evidence_is_true_whatever_it_concludes(character):
    rng, scene, edits = a_task(11)
    edited = flawed_edit(rng, scene, edits, dict.fromkeys(SCENE_FAILURES, 1.0), 2)
    principles = principles_for(truth_of(scene, edits), rng)
    context = PromptContext("score", instruction(scene, edits), principles)
    reply = Annotator(character).chat([ChatRequest((render(scene), edited), seed=1, context=context)])[0]
    seen = oracle.observe([edited])[0]
    for line, principle in zip(reply.text.splitlines(), principles, strict=False):
        aspect = Check.from_question(principle.question).aspect
        assert f" {aspect} {seen.see(aspect)}, want " in line


def test_the_decomposer_answers_in_the_format_of_its_prompt():
    from editr1.judge.decompose import Quotas, parse_principles

    _, scene, edits = a_task(7)
    request = ChatRequest((render(scene),), seed=2, context=PromptContext("decompose", instruction(scene, edits)))
    text = Decomposer().chat([request])[0].text
    principles = parse_principles(text, Quotas(follow=(1, 6), keep=(1, 9), quality=(2, 2)))
    assert principles == principles_for(truth_of(scene, edits), np.random.default_rng(2))


def test_people_prefer_the_better_edit_and_call_equals_same():
    _, scene, edits = a_task(5)
    source, text, good = render(scene), instruction(scene, edits), render(apply_all(scene, edits))
    people = HumanPairs(error_rate=0.0)
    assert people.label(source, text, good, source, 0) == "a"
    assert people.label(source, text, source, good, 0) == "b"
    assert people.label(source, text, good, good, 0) == "same"
    careless = HumanPairs(error_rate=0.25)
    wrong = np.mean([careless.label(source, text, good, source, seed) == "b" for seed in range(1000)])
    assert abs(wrong - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1000)


def test_cells_are_named_in_reading_order():
    assert CELLS[0] == "top-left"
    assert CELLS[8] == "bottom-right"


def test_the_small_verifier_is_made_of_layers_of_the_whole_one():
    from editr1.world.tiny_vlm import WEIGHTS, Qwen2_5_VLForConditionalGeneration
    from research.pretrain_verifier import KEPT, pruned

    whole = Qwen2_5_VLForConditionalGeneration.from_pretrained(WEIGHTS).state_dict()
    small = pruned(WEIGHTS).state_dict()
    kept = {f"{stack}{place}.": f"{stack}{layer}." for stack, layers in KEPT.items() for place, layer in enumerate(layers)}
    for name, weight in small.items():
        origin = next((name.replace(new, old) for new, old in kept.items() if name.startswith(new)), name)
        assert (weight == whole[origin]).all(), name
    assert sum(weight.numel() for weight in small.values()) < 0.8 * sum(weight.numel() for weight in whole.values())


def test_the_shipped_checkpoints_are_small():
    from editr1.world.tiny_vlm import WEIGHTS

    assert (WEIGHTS.parent / "verifier_small" / "model.safetensors").exists()
    assert sum(path.stat().st_size for path in WEIGHTS.parent.rglob("*") if path.is_file()) < 25e6


def test_only_the_verifier_has_sizes(capsys):
    from research.pretrain_world import main

    with pytest.raises(SystemExit):
        main(["editor", "--size", "small"])
    assert "the editor has one size" in capsys.readouterr().err


def test_the_editor_can_be_pretrained_from_the_checkout(tmp_path):
    from research.pretrain_world import main

    assert main(["editor", "--steps", "2", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors").exists()
