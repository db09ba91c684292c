"""The pages say what is true: commands parse, recipes load, code compiles and runs as written, links lead somewhere."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from editr1 import commands as command_folder
from editr1.cli import build_parser, command_names, main
from editr1.commands.loop import check_recipe, places
from editr1.config import available, fill_in, load_recipe, section
from editr1.judge import prompts
from editr1.judge.parse import parse, render
from editr1.judge.prompts import labels, render_score, score_traits
from editr1.schema import Judgement, Principle
from editr1.serve.messages import RewardRequest, RewardResponse
from editr1.store import Run
from fake_endpoint import completion, serve
from pages import HOW_TO, PAGES, RECIPES, ROOT, all_blocks, blocks, commands, editr1_arguments, files, page_id, save_files, shell_lines

TRAINING = ("sft", "gcpo", "edit-rl")
URL = "http://localhost:8000/v1"
NEEDS_NAMES = {HOW_TO / "judge.md", HOW_TO / "query_a_run.md"}  # tests/judge/test_docs.py and tests/store/test_query_page.py run their code

every_page = pytest.mark.parametrize("page", PAGES, ids=page_id)
every_source = pytest.mark.parametrize("page", [*PAGES, *filter(commands, RECIPES)], ids=page_id)
MODELS = {"qwen25vl_3b": "Qwen2.5-VL-3B", "qwen25vl_7b": "Qwen2.5-VL-7B", "qwen3_vl/": "Qwen3-VL-", "qwen35/": "Qwen3.5-"}
"""Whose sizes a dry run takes where the checkpoint of the run is not there yet."""


def test_the_costs_of_the_recipes_are_those_of_their_dry_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [line.split("|")[1:-1] for line in (HOW_TO / "what_it_costs.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == 6
    for recipe, stage, cards, hours, peak in rows:
        path, *settings = re.findall(r"`([^`]+)`", recipe)
        sets = [part for setting in settings for part in ("--set", setting)]
        assert main([stage.strip(), "--config", str(ROOT / "recipes" / path), "--run", str(tmp_path), "--dry-run", *sets]) == 0
        said = [line for line in capsys.readouterr().out.splitlines() if stage.strip() == "edit-rl" or f"on {cards.strip()}" in line]
        assert any(hours.strip() in line for line in said), (recipe, hours)
        assert any(f"peak {peak.strip()}" in line for line in said), (recipe, peak)


# --- every page -------------------------------------------------------------------------------------


@every_source
def test_every_command_is_one_that_exists(page: Path) -> None:
    for arguments in commands(page):
        assert build_parser().parse_args(arguments).command in command_names()


@every_page
def test_torchrun_takes_its_lines(page: Path) -> None:
    """Without `--` it takes `--run` for an abbreviation of its own options."""
    from torch.distributed.run import get_args_parser

    for words in filter(lambda words: words[0] == "torchrun", shell_lines(page)):
        found = get_args_parser().parse_args(words[1:])
        assert found.training_script == "editr1.cli"
        assert "--run" in found.training_script_args


@every_page
def test_every_command_named_in_the_text_exists(page: Path) -> None:
    known = set(command_names())
    own = {Path(name).stem.replace("_", "-") for name in files(page)}  # commands that the page itself teaches to write
    named = set(re.findall(r"`editr1 ([a-z][a-z-]*)", page.read_text(encoding="utf-8")))
    assert named <= known | own


@every_source
def test_every_recipe_of_a_command_loads_and_fits_it(page: Path, tmp_path: Path) -> None:
    save_files(page, tmp_path)
    for arguments in commands(page):
        args = build_parser().parse_args(arguments)
        if getattr(args, "config", None) is None:
            continue
        path = tmp_path / args.config if args.config.name in files(page) else ROOT / args.config
        run_dir = getattr(args, "run", Path("runs/x"))
        recipe = fill_in(load_recipe(path, args.set), **places(run_dir))
        check_recipe(recipe)
        stage = args.command.replace("-", "_")
        if stage in available("stages"):
            config = importlib.import_module(f"editr1.stages.{stage}").Config
            assert isinstance(section(recipe, stage, config), config)


@every_source
def test_every_training_command_runs_dry_and_fits_the_cards_of_its_launch(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 GB each, 24 for the small recipe: behind a launcher in as many processes as its file says, sharded where it says so."""
    from accelerate.commands.launch import launch_command_parser

    monkeypatch.chdir(ROOT)
    for words in shell_lines(page):
        arguments = editr1_arguments(words)
        if arguments is None or arguments[0] not in TRAINING:
            continue
        keys: dict[str, object] = {"num_processes": 1, "distributed_type": "NO"}
        if words[:2] == ["accelerate", "launch"]:
            found = launch_command_parser().parse_args(words[2:])
            assert (found.module, found.training_script, found.training_script_args) == (True, "editr1.cli", arguments)
            keys = yaml.safe_load(Path(found.config_file).read_text())
        monkeypatch.setenv("WORLD_SIZE", str(keys["num_processes"]))
        monkeypatch.setenv("ACCELERATE_USE_FSDP", str(keys["distributed_type"] == "FSDP"))
        args = build_parser().parse_args(arguments)
        told = ["--set", f"{arguments[0]}.model={_size_of(str(args.config))}"] if arguments[0] != "edit-rl" else []
        card = "24GiB" if "small_gpu" in str(args.config) else "80GiB"
        assert main([*arguments, *told, "--dry-run", "--gpu-memory", card]) == 0, words


def _size_of(recipe: str) -> str:
    (model,) = (model for part, model in MODELS.items() if part in recipe)
    return model if not model.endswith("-") else model + re.findall(r"\d[bB]", recipe)[-1].upper()


@every_page
def test_every_launcher_make_target_and_module_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in shell_lines(page):
        if "--config_file" in words:
            assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.M), words
        if "-m" in words and words[0] == "python":
            assert importlib.util.find_spec(words[words.index("-m") + 1])


@every_page
def test_every_file_named_in_the_text_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?<![\w/.])((?:recipes|src|tests)/[\w/]+\.(?:yaml|py|md))", text):
        assert (ROOT / name).is_file(), name
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target


@every_page
def test_every_python_block_compiles_and_every_yaml_and_json_block_reads(page: Path) -> None:
    for language, text in all_blocks(page):
        if language == "python":
            assert compile(text, str(page), "exec").co_code
        elif language in ("yaml", "json"):
            assert yaml.safe_load(text) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page not in NEEDS_NAMES], ids=page_id)
def test_every_python_block_runs_as_written(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = all_blocks(page)
    for (language, text), (follower, output) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "python":
            exec(compile(text, str(page), "exec", dont_inherit=True), {"__name__": "page"})
            printed = capsys.readouterr().out
            assert follower != "text" or printed == output


def test_the_index_names_every_page_once() -> None:
    index = ROOT / "docs" / "index.md"
    linked = re.findall(r"\]\(([^)#]+\.md)\)", index.read_text(encoding="utf-8"))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md") if page != index}
    assert pages <= set(linked)
    assert len(linked) == len(set(linked))


def test_no_page_and_no_figures_name_a_place_of_the_machine_that_made_them() -> None:
    pages = [page for page in (ROOT / "docs").rglob("*") if page.suffix in (".md", ".json")]
    assert [str(page) for page in pages if re.search(r"(?<![\w.:/])/(tmp|work|root|home)/\w", page.read_text(encoding="utf-8"))] == []


# --- single pages -----------------------------------------------------------------------------------


def test_the_json_of_the_reward_page_is_the_contract() -> None:
    request, response = (json.loads(block) for block in blocks(HOW_TO / "use_the_reward.md", "json"))
    assert RewardRequest.model_validate(request).model_dump(exclude_unset=True).keys() == request.keys()
    assert RewardResponse.model_validate(response).model_dump(exclude_unset=True).keys() == response.keys()


def test_the_report_command_does_what_its_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small_run import make_run

    run = make_run(tmp_path / "run", num_tasks=3, training=False)
    assert main(["report", str(run.dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run.dir / "report.html")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that saves a page's files into an empty folder and works there, as a reader with PYTHONPATH=. does."""

    def sit_down(page: Path) -> Path:
        save_files(page, tmp_path)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    before = set(sys.modules)
    yield sit_down
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_verifying_one_edit_prints_what_the_page_shows(reader, capsys: pytest.CaptureFixture[str]) -> None:
    page = HOW_TO / "verify_one_edit.md"
    folder = reader(page)
    for name in ("before.png", "after.png"):
        Image.new("RGB", (16, 16), "purple").save(folder / name)
    (principles,) = blocks(page, "json")
    (folder / "principles.json").write_text(principles)
    text = render(Judgement((True, False, True), 6.5), ["F1", "K1", "Q1"])
    with serve(lambda body: completion(text)) as endpoint:
        calls = [[word.replace(URL, endpoint.url) for word in call] for call in commands(page) if "--principles" in call and URL in call]
        outputs = []
        for call in calls:
            assert main(call) == 0
            outputs.append(capsys.readouterr().out)
    assert outputs[0] == blocks(page, "text")[0]
    assert "mean of 4 of 4 traces" in outputs[1]
    assert json.loads(outputs[2])["score"] == 6.5


def test_a_judge_of_ones_own_works_as_its_page_says(reader, capsys: pytest.CaptureFixture[str]) -> None:
    page = HOW_TO / "benchmark_a_judge.md"
    edits = reader(page) / "my_edits"
    edits.mkdir()
    Image.new("RGB", (16, 16), "red").save(edits / "a.png")
    Image.new("RGB", (16, 16), "blue").save(edits / "b.png")
    for name in ("a_edit.png", "b_edit.png"):
        Image.new("RGB", (16, 16), "grey").save(edits / name)
    (edits / "edits.jsonl").write_text(blocks(page, "jsonl")[0])
    score, audit = (call for call in commands(page) if "my_judge:build" in call)
    assert main(score) == 0
    assert main(audit) == 1
    said = capsys.readouterr().out
    assert "folder/mean" in said
    assert "black" in said
    (metric,) = [metric for metric in Run.open("runs/mine").metrics() if metric.protocol == "folder/mean"]
    assert (metric.value, metric.n, metric.num_unscored) == (10.0, 2, 0)


def test_editor_backend_and_benchmark_work_as_their_page_says(reader) -> None:
    page = HOW_TO / "add_a_component.md"
    pictures = reader(page) / "pictures"
    pictures.mkdir()
    Image.new("RGB", (16, 16), "red").save(pictures / "a.png")
    for call in commands(page):
        assert main(call) == 0
    run = Run.open("runs/try")
    assert {candidate.editor for candidate in run.read("03_candidates")} == {"colour"}
    assert run.count("03_candidates") == 3 * 2
    assert {trace.outcome for trace in run.read("04_traces")} == {Judgement((), 5.0)}
    (metric,) = Run.open("runs/unedited").metrics()
    assert (metric.value, metric.n, metric.protocol) == (0.0, 1, "unedited/at-most-1")  # 5 is more than 1


def test_a_command_works_as_its_page_says(
    reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from small_run import make_run

    run = make_run(tmp_path / "run", num_tasks=3, training=False)
    reader(HOW_TO / "add_a_component.md")
    folder = tmp_path / "commands"
    folder.mkdir()
    (tmp_path / "count_rows.py").rename(folder / "count_rows.py")
    monkeypatch.setattr(command_folder, "__path__", [*command_folder.__path__, str(folder)])
    capsys.readouterr()
    assert main(["count-rows", str(run.dir)]) == 0
    assert "01_tasks 3\n" in capsys.readouterr().out


def test_a_score_prompt_works_as_its_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(str(prompts._TEXTS), tmp_path / "texts")
    (prompt,) = blocks(HOW_TO / "add_a_component.md", "jinja")
    (tmp_path / "texts" / "score" / "lines.md").write_text(prompt)
    monkeypatch.setattr(prompts, "_TEXTS", tmp_path / "texts")
    assert score_traits("lines").demands_verdicts
    principles = (Principle("Is it red?", "follow"), Principle("Is the cat kept?", "keep"))
    before, after = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8))
    request = render_score("lines", before, after, "Make it red", principles)
    assert request.system == "You check edits of pictures. Answer each question, then give a score from 0 to 10."
    assert request.parts[0] is before
    assert 'K1: "Is the cat kept?"' in request.parts[1]
    assert request.parts[2] is after
    assert parse("F1 -> yes\nK1 -> no\n<score>4</score>", 2, labels=labels(principles)) == Judgement((True, False), 4.0)
