"""Acceptance of a trainable adapter: our loop without noise is the pipeline's own, and the batch does not matter."""

import hashlib

import diffusers
import numpy as np
import pytest
import tiny_pipelines as tiny
import torch
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from editr1.editors import flux2, flux2_klein, kontext, longcat_edit, qwen_edit, qwen_edit_plus, qwen_image_2_1
from editr1.errors import BackendError, ConfigError
from editr1.flow.rollout import denoise
from editr1.objectives.schedule import Schedule
from editr1.pictures import to_rgb

STEPS = 4
NAMES = ["kontext", "qwen_edit", "qwen_edit_plus", "flux2_klein", "flux2", "longcat_edit", "qwen_image_2_1"]
GUIDED = [name for name in NAMES if name != "flux2"]  # its guidance is embedded
SEVERAL = ["qwen_edit_plus", "flux2_klein", "flux2", "qwen_image_2_1"]


def fake_words(text, length):
    """States [1, length, 16] that depend on the text: stands in for the big text encoders of Qwen and klein."""
    seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
    return torch.randn(1, length, 16, generator=torch.Generator().manual_seed(seed))


def qwen_words(prompt=None, image=None, prompt_embeds=None, prompt_embeds_mask=None, **_):
    """What `encode_prompt` returns: states of a length that depends on the text, and no mask for a single sample."""
    if prompt_embeds is not None:
        return prompt_embeds, prompt_embeds_mask
    text = prompt[0] if isinstance(prompt, list) else prompt
    return fake_words(text, 5 + len(text) % 4), None


def klein_words(prompt=None, prompt_embeds=None, **_):
    texts = [prompt] if isinstance(prompt, str) else prompt
    states = prompt_embeds if prompt_embeds is not None else torch.cat([fake_words(t, 6) for t in texts])
    ids = torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(1), torch.arange(states.shape[1]))
    return states, ids.expand(states.shape[0], -1, -1)


def longcat_words(prompt=None, image=None, prompt_embeds=None, **_):
    states = fake_words(prompt[0] if isinstance(prompt, list) else prompt, 6) if prompt_embeds is None else prompt_embeds
    return states, pipeline_longcat_image_edit.prepare_pos_ids(0, "text", num_token=states.shape[1])


def qwen_2_1_words(prompt=None, image=None, prompt_embeds=None, **_):
    """A word, the pictures' slots (a square of 32 pixels each) with a word after each picture, and words of their own number."""
    text = prompt[0] if isinstance(prompt, list) else prompt
    slots = [False] + [slot for one in image for slot in [True] * (one.width * one.height // 32**2) + [False]]
    slots += [False] * (4 + len(text) % 4)
    return fake_words(text, len(slots)), None, torch.tensor([slots])


@pytest.fixture(autouse=True)
def small_sources(monkeypatch):
    """The Qwen pipelines encode sources at a fixed megapixel: make that the test's size."""
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda area, ratio: (tiny.SIDE, tiny.SIDE, None))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "calculate_dimensions", lambda area, ratio: (tiny.SIDE, tiny.SIDE))
    monkeypatch.setattr(pipeline_longcat_image_edit, "calculate_dimensions", lambda area, ratio: (tiny.SIDE, tiny.SIDE))


def make(name, guided, **changes):
    """(editor, pipeline, arguments of the pipeline's call that ask for the same guidance)."""
    if name == "kontext":
        pipe = tiny.kontext()
        call = {"true_cfg_scale": 3.0, "negative_prompt": "bad"} if guided else {}
        editor = kontext.KontextEditor(pipe, true_cfg=3.0 if guided else 1.0, negative="bad", text_tokens=16)
        return editor, pipe, {"guidance_scale": 2.5, "max_sequence_length": 16, "max_area": tiny.SIDE**2, "_auto_resize": False} | call
    if name == "flux2_klein":
        pipe = tiny.klein()
        pipe.encode_prompt = klein_words
        return flux2_klein.KleinEditor(pipe, 3.0 if guided else 1.0, text_tokens=6), pipe, {"guidance_scale": 3.0 if guided else 1.0}
    if name == "flux2":
        pipe = tiny.flux2()
        pipe.encode_prompt = klein_words
        return flux2.Flux2Editor(pipe, 3.0, text_tokens=6), pipe, {"guidance_scale": 3.0}
    if name == "longcat_edit":
        pipe = tiny.longcat()
        pipe.encode_prompt = longcat_words
        call = {"guidance_scale": 3.0, "negative_prompt": "bad"} if guided else {"guidance_scale": 1.0}
        return longcat_edit.LongCatEditEditor(pipe, 3.0 if guided else 1.0, "bad"), pipe, call
    if name == "qwen_image_2_1":
        pipe = tiny.qwen_image_2_1()
        pipe.encode_prompt = qwen_2_1_words
        call = {"true_cfg_scale": 3.0, "negative_prompt": "bad"} if guided else {}
        call |= {"use_kv_cache": False, "output_resolution": tiny.SIDE}
        return qwen_image_2_1.QwenImage21Editor(pipe, 3.0 if guided else 1.0, "bad"), pipe, call
    cls, plain = {
        "qwen_edit": (qwen_edit.QwenEditEditor, diffusers.QwenImageEditPipeline),
        "qwen_edit_plus": (qwen_edit_plus.QwenEditPlusEditor, diffusers.QwenImageEditPlusPipeline),
    }[name]  # fmt: skip
    pipe = tiny.qwen(plain, **changes)
    pipe.encode_prompt = qwen_words
    call = {"true_cfg_scale": 3.0, "negative_prompt": "bad"} if guided else {"true_cfg_scale": 1.0}
    return cls(pipe, 3.0 if guided else 1.0, "bad"), pipe, call


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ours(editor, sources, texts, seeds):
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    cond = editor.encode(sources, texts, plan)
    return denoise(editor, editor.noise(plan, seeds), Schedule(editor.sigmas(plan, STEPS)), cond), plan


def unpacked(name, editor, x, plan):
    """klein's pipeline returns VAE latents, the others return packed ones; both take x_T as below."""
    return editor.vae_latents(x, plan) if name == "flux2_klein" else x


def sizes(name):
    """LongCat's pipeline takes no size: it works at a fixed megapixel."""
    return {} if name == "longcat_edit" else {"height": tiny.SIDE, "width": tiny.SIDE}


def pipeline_noise(name, editor, plan, seeds):
    x = editor.noise(plan, seeds)
    if name not in ("flux2_klein", "flux2"):
        return x
    side = tiny.SIDE // editor.multiple
    return x.permute(0, 2, 1).reshape(-1, plan.channels, side, side)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
@pytest.mark.parametrize("name", NAMES)
def test_our_loop_without_noise_gives_the_latents_of_the_pipeline(name, guided):
    """flux2 has no second pass: with its embedded guidance both cases are one."""
    editor, pipe, call = make(name, guided)
    x, plan = ours(editor, [picture(1)], ["make it red"], [7])
    theirs = pipe(
        image=picture(1), prompt="make it red", num_inference_steps=STEPS, **sizes(name),
        latents=pipeline_noise(name, editor, plan, [7]), output_type="latent", **call,
    ).images  # fmt: skip
    torch.testing.assert_close(unpacked(name, editor, x, plan), theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_decoded_pictures_are_those_of_the_pipeline(name):
    editor, pipe, call = make(name, False)
    x, plan = ours(editor, [picture(1)], ["make it red"], [7])
    theirs = pipe(
        image=picture(1), prompt="make it red", num_inference_steps=STEPS, **sizes(name),
        latents=pipeline_noise(name, editor, plan, [7]), output_type="pil", **call,
    ).images[0]  # fmt: skip
    (image,) = editor.decode(x, plan)
    assert image.size == (plan.width, plan.height)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image, int) - np.asarray(to_rgb(theirs), int)).max() <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_an_overflow_in_the_vae_stops_and_is_no_black_picture(name, value, monkeypatch):
    editor, pipe, _ = make(name, False)
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    good = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda *args, **kwargs: [pixels.fill_(value) for pixels in good(*args, **kwargs)])
    with pytest.raises(BackendError, match=f"{name}: the edit holds NaN or infinite pixels"):
        editor.decode(editor.noise(plan, [0]), plan)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoded_source_decodes_to_a_picture_of_its_size(name):
    """decode inverts the packing and normalisation of encode: what comes out is the VAE's own reconstruction."""
    editor, _, _ = make(name, False)
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    source = editor.encode([picture(1)], ["make it red"], plan)["source"].float()
    torch.testing.assert_close(editor.latents([picture(1)], plan), source)
    assert source.shape == (1, plan.num_tokens, plan.channels)
    (image,) = editor.decode(source, plan)
    assert image.size == (tiny.SIDE, tiny.SIDE)
    assert np.abs(np.asarray(image, int) - np.asarray(reconstruction(editor, picture(1)), int)).max() <= 1


def reconstruction(editor, image):
    """The VAE's own, without a latent in between being packed or normalised."""
    opacity = isinstance(editor.pipe.vae, diffusers.AutoencoderKLQwenImage21)
    pixels = editor.pipe.image_processor.preprocess([image.convert("RGBA") if opacity else image])
    video = opacity or isinstance(editor.pipe.vae, diffusers.AutoencoderKLQwenImage)
    with torch.no_grad():
        latents = editor.pipe.vae.encode(pixels.unsqueeze(2) if video else pixels).latent_dist.mode()
        decoded = editor.pipe.vae.decode(latents).sample
    return to_rgb(editor.pipe.image_processor.postprocess(decoded[:, :, 0] if video else decoded, output_type="pil")[0])


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_two_equals_two_batches_of_one(name, guided):
    """Words of different length: the Qwen adapters must pad and mask."""
    editor, _, _ = make(name, guided)
    texts = ["make it red", "remove the large dog"]
    together, _ = ours(editor, [picture(1), picture(2)], texts, [7, 8])
    for row in (0, 1):
        alone, _ = ours(editor, [picture(row + 1)], texts[row : row + 1], [7 + row])
        torch.testing.assert_close(together[row : row + 1], alone, atol=2e-5, rtol=1e-5)


def test_models_that_see_the_source_as_clean_agree_with_their_pipeline():
    """zero_cond_t (2511) feeds source tokens timestep 0, told apart by img_shapes."""
    editor, pipe, call = make("qwen_edit_plus", False, zero_cond_t=True)
    x, plan = ours(editor, [picture(1)], ["make it red"], [7])
    theirs = pipe(image=picture(1), prompt="make it red", height=tiny.SIDE, width=tiny.SIDE, num_inference_steps=STEPS,
                  latents=editor.noise(plan, [7]), output_type="latent", **call).images  # fmt: skip
    torch.testing.assert_close(x, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "cfg"])
@pytest.mark.parametrize("name", SEVERAL)
def test_several_source_pictures_give_the_latents_of_the_pipeline(monkeypatch, name, guided):
    def at_the_tests_area(area, ratio):
        return round((tiny.SIDE**2 * ratio) ** 0.5 / 16) * 16, round((tiny.SIDE**2 / ratio) ** 0.5 / 16) * 16

    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "calculate_dimensions", at_the_tests_area)
    editor, pipe, call = make(name, guided)
    square = tiny.SIDE
    if name.startswith("flux2"):  # its pipeline takes pictures as they are, of at least 64 pixels a side
        editor.condition_area, square = 2 * tiny.SIDE**2, 96
    pictures = (picture(1).resize((square, square)), picture(2).resize((2 * tiny.SIDE, tiny.SIDE)), picture(3).resize((square, square)))
    x, plan = ours(editor, [pictures], ["put the first on the second"], [7])
    theirs = pipe(
        image=list(pictures), prompt="put the first on the second", height=tiny.SIDE, width=tiny.SIDE, num_inference_steps=STEPS,
        latents=pipeline_noise(name, editor, plan, [7]), output_type="latent", **call,
    ).images  # fmt: skip
    torch.testing.assert_close(unpacked(name, editor, x, plan), theirs, atol=2e-5, rtol=1e-5)
    fewer, _ = ours(editor, [pictures[:2]], ["put the first on the second"], [7])
    assert float((fewer - x).abs().max()) > 1e-4


@pytest.mark.parametrize("name", SEVERAL)
def test_samples_with_several_pictures_share_a_batch(name):
    editor, _, _ = make(name, True)
    sources, texts = [(picture(1), picture(2)), (picture(3), picture(4))], ["make it red", "remove the large dog"]
    together, _ = ours(editor, sources, texts, [7, 8])
    for row in (0, 1):
        alone, _ = ours(editor, sources[row : row + 1], texts[row : row + 1], [7 + row])
        torch.testing.assert_close(together[row : row + 1], alone, atol=2e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"source_grids|slots"):
        ours(editor, [sources[0], (picture(1),)], texts, [7, 8])


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SEVERAL)))
def test_models_for_one_picture_refuse_several(name):
    with pytest.raises(ConfigError, match="1 to 1 source"):
        ours(make(name, False)[0], [(picture(1), picture(2))], ["make it red"], [7])


def test_a_processor_that_resizes_a_source_is_told(monkeypatch):
    """Qwen3-VL's slots and the VAE's tokens must be the same squares of the picture."""
    editor, pipe, _ = make("qwen_image_2_1", False)
    pipe.encode_prompt = lambda prompt, image, **_: qwen_2_1_words(prompt, [one.resize((128, 128)) for one in image])
    with pytest.raises(ConfigError, match="16 slots where 16 tokens"):
        ours(editor, [picture(1)], ["make it red"], [7])


@pytest.mark.parametrize("name", NAMES)
def test_the_velocity_depends_on_source_words_and_level(name):
    editor, _, _ = make(name, False)
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    x = editor.noise(plan, [3])
    base = editor.encode([picture(1)], ["make it red"], plan)
    v = editor.velocity(x, 0.5, base)
    assert v.dtype == torch.float32
    for other in (editor.encode([picture(2)], ["make it red"], plan), editor.encode([picture(1)], ["make it sky"], plan)):
        assert float((editor.velocity(x, 0.5, other) - v).abs().max()) > 1e-4
    assert float((editor.velocity(x, 0.9, base) - v).abs().max()) > 1e-4


@pytest.mark.parametrize("name", GUIDED)
def test_guidance_needs_a_negative_that_differs(name):
    """Guidance whose negative is the positive again is no guidance."""
    guided, _, _ = make(name, True)
    plain, _, _ = make(name, False)
    plan = plain.plan(tiny.SIDE, tiny.SIDE)
    x = plain.noise(plan, [3])
    cond = guided.encode([picture(1)], ["make it red"], plan)
    v = guided.velocity(x, 0.5, cond)
    assert float((v - plain.velocity(x, 0.5, cond)).abs().max()) > 1e-4
    same = {**cond, **{key: cond[key.removeprefix("negative_")] for key in cond if key.startswith("negative_")}}
    torch.testing.assert_close(guided.velocity(x, 0.5, same), plain.velocity(x, 0.5, cond), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_encoding_once_and_expanding_equals_encoding_every_copy(name):
    editor, _, _ = make(name, True)
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    texts, sources = ["make it red", "remove the large dog"], [picture(1), picture(2)]
    once = editor.expand(editor.encode(sources, texts, plan), 2)
    each = editor.encode([s for s in sources for _ in (0, 1)], [t for t in texts for _ in (0, 1)], plan)
    assert once.keys() == each.keys()
    for key, value in once.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value.float(), each[key].float(), atol=1e-5, rtol=1e-5)
        else:
            assert value == each[key]


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_one_batch_may_stand_at_different_steps(name):
    editor, _, _ = make(name, False)
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    x = editor.noise(plan, [3, 4])
    cond = editor.encode([picture(1), picture(2)], ["make it red", "make it sky"], plan)
    together = editor.velocity(x, torch.tensor([0.9, 0.4]), cond)
    torch.testing.assert_close(together[:1], editor.velocity(x, 0.9, cond)[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1:], editor.velocity(x, 0.4, cond)[1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_other_target_shapes_and_source_sizes_work(name):
    editor, _, _ = make(name, False)
    editor.condition_area = 32 * 32
    plan = editor.plan(70, 40)
    assert (plan.height, plan.width) == (64, 32)
    cond = editor.encode([picture(1)], ["make it red"], plan)
    assert editor.velocity(editor.noise(plan, [3]), 0.5, cond).shape == (1, plan.num_tokens, plan.channels)
    assert editor.decode(editor.noise(plan, [3]), plan)[0].size == (32, 64)
