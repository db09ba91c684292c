"""Each plug-in against the signature that its trainer calls; the trainers need not be installed. The service is a real one on loopback."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import importlib
import importlib.util
import inspect
import io
import pickle
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import uvicorn
import yaml
from PIL import Image

from editr1.config import Component
from editr1.errors import BackendError, ChangedInputsError, ConfigError, DataError, UnscoredError
from editr1.integrations import _client, flow_factory, flow_grpo, verl_omni
from editr1.integrations._client import Edit, RewardClient, to_picture
from editr1.judge.rrm import RewardModel
from editr1.schema import pictures_of
from editr1.serve.app import Access, Config, build_app
from editr1.vlm.base import ChatReply, ChatRequest, Sampling, request_images
from fake_endpoint import completion, serve

RECIPES = Path(__file__).parents[2] / "recipes" / "integrations"
RED, BLUE = Image.new("RGB", (24, 24), "red"), Image.new("RGB", (24, 24), "blue")


class DirectVLM:
    """Scores without principles; `nonsense` never, `moody` only from its second seed on."""

    name = "direct"

    def __init__(self) -> None:
        self.asked = 0

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: ChatRequest) -> ChatReply:
        assert request.context is not None
        text = request.context.instruction
        self.asked += text == "moody"
        silent = text == "nonsense" or (text == "moody" and self.asked == 1)
        return ChatReply("no idea" if silent else "<score>7.5</score>", self.name)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = build_app(RewardModel(DirectVLM(), "compact_direct", 1, Sampling(0.0)), Config(Component("x"), "compact_direct"), Access())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# --- the shared client


def test_an_unscored_edit_is_asked_again_and_then_raises(url: str) -> None:
    client = RewardClient(url)
    assert [score.value for score in client.score([Edit(RED, BLUE, "fine"), Edit(RED, BLUE, "moody")])] == [7.5, 7.5]
    with pytest.raises(UnscoredError, match="1 of 2 edits"):
        client.score([Edit(RED, BLUE, "fine"), Edit(RED, BLUE, "nonsense")])


def test_a_large_batch_travels_in_requests_that_the_service_takes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [Edit(RED, BLUE, "nonsense" if number == 299 else f"fine {number}") for number in range(300)]
    assert [score.value for score in RewardClient(url).score(edits[:299])] == [7.5] * 299
    with pytest.raises(UnscoredError, match="1 of 300"):
        RewardClient(url).score(edits)
    sizes: list[int] = []
    ask = RewardClient._ask
    monkeypatch.setattr(RewardClient, "_ask", lambda self, batch, seed: sizes.append(len(batch)) or ask(self, batch, seed))
    monkeypatch.setattr(_client, "MAX_BATCH_BYTES", 3 * sum(len(_client._base64(image)["base64"]) for image in (RED, BLUE)))
    assert len(RewardClient(url).score(edits[:7])) == 7
    assert sizes == [3, 3, 1]


def test_several_sources_travel_together(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    reply = DirectVLM._reply
    monkeypatch.setattr(DirectVLM, "_reply", lambda self, request: shown.append(len(request_images(request))) or reply(self, request))
    edits = [Edit(RED, BLUE, "fine"), Edit((RED, BLUE), BLUE, "fine")]
    assert [score.value for score in RewardClient(url).score(edits)] == [7.5, 7.5]
    assert sorted(shown) == [2, 3]
    shown.clear()
    flow_grpo.edit_rrm_score(server_url=url)([BLUE], [[RED, BLUE]], ["fine"])
    extra = {"source_image": [png(RED), png(BLUE), png(RED)], "instruction": "fine"}
    asyncio.run(verl_omni.compute_score("d", np.zeros((3, 24, 24), np.uint8), "", extra, server_url=url))
    assert shown == [3, 4]


def test_a_service_that_is_down_is_named_after_the_retries() -> None:
    pauses: list[float] = []
    client = RewardClient("http://127.0.0.1:9", max_attempts=3, sleep=pauses.append)
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9"):
        client.score([Edit(RED, BLUE, "x")])
    assert pauses == [1.0, 2.0]


def test_pictures_of_every_trainer_mean_the_same() -> None:
    array = np.asarray(RED)
    chw = array.transpose(2, 0, 1)
    for value in (RED, png(RED), array, chw, torch.from_numpy(chw.copy()), torch.from_numpy(chw / 255.0), (chw / 255).astype(np.float32)):
        assert to_picture(value).tobytes() == RED.tobytes()
    with pytest.raises(DataError, match=r"shape \[4, 4\], expected one picture"):
        to_picture(np.zeros((4, 4)))
    with pytest.raises(DataError, match="the picture"):
        to_picture(b"no picture")


def test_what_a_table_or_a_batch_holds_is_a_picture() -> None:
    url = "data:image/png;base64," + base64.encodebytes(png(RED)).decode()
    for value in ({"bytes": png(RED), "path": None}, url):
        assert to_picture(value).tobytes() == RED.tobytes()
    chw = np.asarray(RED).transpose(2, 0, 1)
    held = np.empty(2, dtype=object)
    held[:] = [png(RED), png(BLUE)]
    for batch in (torch.from_numpy(np.stack([chw, chw])), np.stack([chw, chw]), held, [png(RED), RED]):
        assert len(pictures_of(_client.to_source(batch))) == 2
    for nothing in ([], np.zeros((0, 3, 4, 4), np.uint8), "data:image/png;base64,?", {"bytes": None}):
        with pytest.raises(DataError):
            _client.to_source(nothing)
    with pytest.raises(DataError) as caught:
        to_picture(base64.b64encode(bytes(100_000)).decode())
    assert len(str(caught.value)) < 500


def test_an_address_names_a_file_of_this_machine_or_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(png(RED))
    for value in (f"file://{tmp_path}/a%20b.png", {"path": (tmp_path / "a b.png").as_uri()}):
        assert to_picture(value).tobytes() == RED.tobytes()
    for value in ("http://host/a.png", "s3://bucket/a.png", f"file://elsewhere{tmp_path}/a.png"):
        with pytest.raises(DataError, match=r"download it|another machine"):
            to_picture(value)


def test_principles_come_as_rows_or_columns() -> None:
    rows = [{"question": "Is it red?", "category": "follow"}, {"question": "Is the rest kept?", "category": "keep"}]
    columns = {name: [row[name] for row in rows] for name in ("question", "category")}
    assert _client.to_principles(columns) == _client.to_principles(rows) == _client.to_principles(np.array(rows, dtype=object))
    assert _client.to_principles({"question": [], "category": []}) is None
    for wrong in ([{"question": "x"}], ["Is it red?"], [None], {"question": ["x"]}):
        with pytest.raises(DataError, match="rows of"):
            _client.to_principles(wrong)
    for wrong in (5, {"question": "Is it red?", "category": "follow"}, [{"question": "x", "category": "Follow"}]):
        with pytest.raises(DataError, match="rows of"):
            _client.to_principles(wrong)
    for question in (None, "", 3):
        with pytest.raises(DataError, match="expected a text"):
            _client.to_principles([{"question": question, "category": "keep"}])


@pytest.mark.parametrize("prompt", ["", "  ", None, 7, b"make it red", "cut \ud83d"])
def test_an_instruction_that_is_none_fails_alone_and_before_it_is_sent(prompt: Any) -> None:
    with pytest.raises(DataError, match="instruction"):
        Edit(RED, BLUE, prompt)


def test_retry_after_of_the_service_is_honoured_and_a_slow_body_is_sent_again() -> None:
    answers: list[Any] = [(429, {"error": "full"}), (408, {"error": "slow"})]
    good = {"results": [{"value": 7.0, "categories": {}, "reason": None}]}
    pauses: list[float] = []
    with serve(lambda body: answers.pop(0) if answers else good) as endpoint:
        endpoint.retry_after = "0.25"
        assert RewardClient(endpoint.url, sleep=pauses.append).score([Edit(RED, BLUE, "x")])[0].value == 7.0
    assert pauses == [0.25, 2.0]


def test_scorers_and_errors_travel_between_processes(url: str) -> None:
    scorer = pickle.loads(pickle.dumps(flow_grpo.edit_rrm_score("cuda", server_url=url)))
    scores, details = scorer(images=[BLUE], ref_images=[RED], prompts=np.array(["fine"]), metadata=None)
    assert (scores.tolist(), scores.dtype, details) == ([7.5], np.float32, {})
    for error in (ChangedInputsError(Path("folder"), "x was changed"), UnscoredError("u"), BackendError("b"), DataError("d")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_flow_grpos_own_branches_are_told_from_ours(url: str) -> None:
    scorer = flow_grpo.edit_rrm_score(server_url=url)
    for arguments in (([BLUE], [RED]), ([BLUE], ["make it blue"], [{"task": "edit"}])):
        with pytest.raises(ConfigError, match="add the branch"):
            scorer(*arguments)


# --- verl-omni


def test_verl_omni_calls_with_its_signature_and_gets_numbers(url: str) -> None:
    known = ["data_source", "solution_image", "ground_truth", "extra_info", "reward_router_address", "model_name", "server_url"]
    assert list(inspect.signature(verl_omni.compute_score).parameters)[:7] == known
    image = torch.from_numpy(np.asarray(BLUE).transpose(2, 0, 1).copy())
    extra = {"source_image": png(RED), "instruction": "make it blue"}
    reward = asyncio.run(verl_omni.compute_score("edits", image, "", extra, server_url=url))
    assert reward["score"] == 7.5
    assert set(reward) == {"score", "follow", "keep", "quality", "parsed"}
    with pytest.raises(UnscoredError):
        asyncio.run(verl_omni.compute_score("edits", image, "nonsense", {"source_image": png(RED)}, server_url=url))


def test_verl_omni_judges_inside_the_pool_through_the_router() -> None:
    image = np.asarray(BLUE).transpose(2, 0, 1)
    with serve(lambda body: completion("<score>4.0</score>")) as endpoint:
        address = endpoint.url.removeprefix("http://").removesuffix("/v1")
        call = verl_omni.compute_score("edits", image, "make it blue", {"source_image": png(RED)}, address, "rrm", prompt_id="direct")
        assert asyncio.run(call)["score"] == 4.0


def test_verl_omni_asks_again_inside_the_pool() -> None:
    image = np.asarray(BLUE).transpose(2, 0, 1)
    texts = iter(["I like it.", "still no score", "<score>4.0</score>"])
    with serve(lambda body: completion(next(texts))) as endpoint:
        address = endpoint.url.removeprefix("http://").removesuffix("/v1")
        row = {"source_image": png(RED)}
        call = verl_omni.compute_score("edits", image, "make it blue", row, address, "rrm", prompt_id="direct", temperature=0.0)
        assert asyncio.run(call)["score"] == 4.0


def test_flow_grpo_dispatch_with_the_entry_and_the_branch_of_the_how_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The branch as the page gives it, called with what their loop holds."""
    page = (RECIPES.parents[1] / "docs" / "how_to" / "use_the_reward.md").read_text()
    monkeypatch.setenv("EDITR1_URL", url)
    names: dict[str, Any] = {}
    exec(page[page.index("from editr1.integrations.flow_grpo") : page.index("```bash\nexport EDITR1_URL")].replace("```", ""), names)
    score_fns = {"edit_rrm": names["score_functions"]["edit_rrm"]("cpu")}
    scores, rewards = names["call"]("edit_rrm", score_fns, torch.zeros(2, 3, 8, 8), [RED, RED], ["fine", "fine"], [{}, {}])
    assert (scores.tolist(), rewards) == ([7.5, 7.5], {})


def test_verl_omni_rows_without_a_source_are_refused(url: str) -> None:
    with pytest.raises(DataError, match="extra_info"):
        asyncio.run(verl_omni.compute_score("edits", np.zeros((3, 4, 4), np.uint8), "x", {}, server_url=url))
    with pytest.raises(DataError, match="instruction"):
        asyncio.run(verl_omni.compute_score("edits", np.zeros((3, 4, 4), np.uint8), "", {"source_image": png(RED)}, server_url=url))


def test_the_converter_carries_the_source_bytes(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(png(BLUE))
    rows = [
        {"prompt": "p", "images": [{"bytes": png(RED), "path": None}], "extra_info": {"index": 0}},
        {"prompt": "q", "images": [{"bytes": None, "path": "b.png"}], "extra_info": {"index": 1}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    assert verl_omni.attach_sources(tmp_path / "in.parquet", tmp_path / "out.parquet") == 2
    out = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["extra_info"] for row in out] == [{"index": 0, "source_image": png(RED)}, {"index": 1, "source_image": png(BLUE)}]
    pq.write_table(pa.Table.from_pylist([{"images": [{"bytes": None, "path": "../b.png"}]}]), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="outside"):
        verl_omni.attach_sources(tmp_path / "bad.parquet", tmp_path / "x.parquet")


# --- Flow-Factory


@dataclasses.dataclass
class RewardArguments:
    """The fields of theirs that the class reads."""

    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    extra_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@pytest.fixture
def flow_factory_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules with the classes that Flow-Factory's `rewards/abc.py` defines."""

    @dataclasses.dataclass
    class RewardModelOutput:
        rewards: Any
        extra_info: dict[str, Any] | None = None

    class PointwiseRewardModel:
        required_fields: tuple[str, ...] = ("image", "prompt")
        use_tensor_inputs = False

        def __init__(self, config: RewardArguments, accelerator: Any) -> None:
            self.accelerator, self.config, self.device, self.dtype = accelerator, config, config.device, config.dtype

    module = types.ModuleType("flow_factory.rewards.abc")
    module.PointwiseRewardModel, module.RewardModelOutput = PointwiseRewardModel, RewardModelOutput  # type: ignore[attr-defined]
    for name in ("flow_factory", "flow_factory.rewards"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "flow_factory.rewards.abc", module)
    flow_factory._make_class.cache_clear()


@pytest.mark.usefixtures("flow_factory_installed")
def test_flow_factory_finds_the_class_by_its_path_and_calls_it(url: str) -> None:
    entry = yaml.safe_load((RECIPES / "flow_factory.yaml").read_text())["rewards"][0]
    module, name = entry["reward_model"].rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    assert cls.required_fields == ("prompt", "image", "condition_images")
    model = cls(RewardArguments(extra_kwargs={"server_url": url}), accelerator=None)
    # Their collector passes what the signature names, and everything where it has **kwargs.
    signature = inspect.signature(model.__call__)
    assert list(signature.parameters) == ["prompt", "image", "video", "condition_images"]
    output = model(prompt=["fine", "fine"], image=[BLUE, BLUE], condition_images=[[RED], [RED]], video=None)
    assert output.rewards.tolist() == [7.5, 7.5]
    with pytest.raises(UnscoredError):
        model(prompt=["nonsense"], image=[BLUE], condition_images=[[RED]])
    assert model(prompt=["fine"], image=[BLUE], condition_images=[[RED, RED]]).rewards.tolist() == [7.5]
    with pytest.raises(DataError, match="no source"):
        model(prompt=["fine"], image=[BLUE], condition_images=[[]])
    with pytest.raises(ConfigError, match="server_url"):
        cls(RewardArguments(), accelerator=None)


# --- flow_grpo


def test_flow_grpo_gets_an_array_for_its_tensors(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_URL", url)
    images = torch.zeros(2, 3, 24, 24)
    scores, details = flow_grpo.edit_rrm_score("cuda")(images, [RED, RED], ["fine", "fine"], [{}, {}])
    assert (scores.tolist(), details) == ([7.5, 7.5], {})
    with pytest.raises(UnscoredError):
        flow_grpo.edit_rrm_score()(images[:1], [RED], ["nonsense"], [{}])
    exact = flow_grpo.edit_rrm_score()(images.to(torch.bfloat16), [RED, RED], ["fine", "fine"], [{}, {}])[0]
    assert exact.tolist() == [7.5, 7.5]
    monkeypatch.delenv("EDITR1_URL")
    with pytest.raises(ConfigError, match="EDITR1_URL"):
        flow_grpo.edit_rrm_score()


def test_the_flow_grpo_recipe_names_the_entry_of_the_how_to() -> None:
    spec = importlib.util.spec_from_file_location("recipe", RECIPES / "flow_grpo.py")
    assert spec is not None
    assert spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    config = recipe.with_edit_rrm(types.SimpleNamespace(reward_fn={"geneval": 0.5}, sample=types.SimpleNamespace(global_std=True)))
    (name,) = config.reward_fn
    assert f'"{name}": edit_rrm_score' in (RECIPES.parents[1] / "docs" / "how_to" / "use_the_reward.md").read_text()
    assert config.sample.global_std is False


# --- recipes


def test_the_recipes_name_what_exists() -> None:
    verl = yaml.safe_load((RECIPES / "verl_omni.yaml").read_text())["reward"]["reward_functions"]["editrrm"]
    pool = yaml.safe_load((RECIPES / "verl_omni_pool.yaml").read_text())["reward"]["custom_reward_function"]
    for entry in (verl, pool):
        assert hasattr(importlib.import_module(entry["path"].removeprefix("pkg://")), entry["name"])
    assert verl["required"] is True
    unirl = yaml.safe_load((RECIPES / "unirl.yaml").read_text())["reward"]["backend"]["config"]
    assert unirl["required_rewards"] == ["editrrm"]
    assert unirl["raise_on_failure"] is True
    assert unirl["request_batch_size"] <= _client.MAX_BATCH
