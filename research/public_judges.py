"""Figures of the judges whose raw answers are public, beside the figures that were published for them, as a Markdown page.

    git clone https://github.com/TIGER-AI-Lab/VIEScore PUBLIC/VIEScore
    git clone https://github.com/TIGER-AI-Lab/GenAI-Bench PUBLIC/GenAI-Bench
    python -m research.public_judges PUBLIC --out docs/results/public_judges.md

Takes every folder `_answers/<results>` (or `answers/<results>`) of VIEScore's layout and every GenAI-Bench `pairwise.json` of image
editing below the folder. The last line is one JSON object: how many published figures the raw files give to every printed digit.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from editr1.bench import genai_bench, viescore_pairs
from editr1.schema import Metric
from editr1.stats.agreement import mean_correlation

# Percent, as printed. VIEScore: the notebook analyze_json.ipynb (Gemini) and EditReward's ImagenHub column (GPT-4o).
VIESCORE_PUBLISHED = {"results_gemini_0shot": "27.28", "results_gpt4o_0shot": "38.21"}
# GenAI-Bench: genaibench_results.txt, image editing, with the trailing zero that its table leaves out.
GENAI_PUBLISHED = {
    "blip2": "26.01",
    "cogvlm": "0.00",
    "gemini-1.5-pro": "55.93",
    "gpt4o": "53.54",
    "idefics1": "5.66",
    "idefics2": "27.31",
    "instructblip": "19.80",
    "kosmos2": "0.00",
    "llava": "26.12",
    "llavanext": "25.35",
    "mantis-8b-idefics2": "0.00",
    "mantis-8b-idefics2_8192": "0.00",
    "minicpm-V-2.5": "25.24",
    "otterimage": "0.00",
    "ottervideo": "0.00",
    "qwenVL": "14.91",
    "random": "25.90",
    "videollava": "26.66",
}
NOTEBOOK, GEMINI = "analyze_json.ipynb", "results_gemini_0shot"
RATERS = {viescore_pairs.TASK: (0, 2, 1)}  # as the author's folder listed them: found by trying all orders; the others as they are named
RATED = "Text-Guided_IE in the order 1, 3, 2, which their author's folder must have had"
GENAI_FOLDERS = ("image_edition", "genai_bench")
HEAD = """# Judges whose raw answers are public

Made by `python -m research.public_judges PUBLIC --out docs/results/public_judges.md` from the public VIEScore raw files
(TIGER-AI-Lab/VIEScore) and GenAI-Bench raw files (TIGER-AI-Lab/GenAI-Bench). No model is asked. All figures in percent, brackets are
95 % intervals; protocols are explained in [Benchmarks and judges](../benchmarks.md).
"""


def percent(metric: Metric, digits: int = 2) -> str:
    return "-" if metric.value is None else f"{100 * metric.value:.{digits}f}"


def interval(metric: Metric) -> str:
    return "" if metric.low is None or metric.high is None else f" [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def published(name: str, table: dict[str, str], ours: str, checks: list[bool]) -> str:
    """The cell of the published figure; notes whether ours is the same."""
    if name not in table:
        return "-"
    checks.append(table[name] == ours)
    return table[name] if checks[-1] else f"**{table[name]}**"


def viescore_page(root: Path, seed: int, checks: list[bool]) -> list[str]:
    patterns = [f"{name}/*/{viescore_pairs.TASK}/*/SC.json" for name in viescore_pairs.ANSWERS]
    folders = sorted({path.parents[2] for pattern in patterns for path in root.rglob(pattern)})
    if not folders:
        return []
    lines = [
        "",
        "## VIEScore's study, text-guided editing",
        "",
        "8 editors, 179 instructions about 116 photos, 3 raters: 5,012 pairs, of which people decided 2,182 (56.5 % human ties).",
        "An answer that was not stored or cannot be read is unscored: wrong under strict, half under half. Published: tanh of the",
        "mean rho, which is biased low; Gemini's is from VIEScore's notebook, GPT-4o's from EditReward's ImagenHub column.",
        "",
        row("answers", "strict", "half", "non-tied", "score ties", "unscored", "rho plain", "rho fisher", "tanh of mean", "published"),
        row(*["---"] * 10),
    ]
    for folder in folders:
        found = {m.protocol: m for m in viescore_pairs.metrics(viescore_pairs.load(folder.parent.parent, folder.name), seed)}
        strict, half, non_tied = (found[f"viescore-pairs/decisive/{credit}"] for credit in ("strict", "half", "non-tied"))
        plain, fisher = (found[f"viescore-pairs/spearman/{kind}"] for kind in ("plain", "fisher"))
        biased = found["viescore-pairs/notebook/O"]
        lines.append(
            row(
                folder.name,
                percent(strict) + interval(strict),
                percent(half) + interval(half),
                percent(non_tied) + interval(non_tied),
                "-" if strict.tie_rate is None else f"{100 * strict.tie_rate:.1f}",
                str(strict.num_unscored),
                percent(plain, 1),
                percent(fisher, 1),
                percent(biased),
                published(folder.name, VIESCORE_PUBLISHED, percent(biased), checks),
            )
        )
        if folder.name == "results_gpt4o_0shot":
            errors = {m.protocol.rpartition("/")[2]: m.value for m in found.values() if "standard-error" in m.protocol}
    if any(folder.name == "results_gpt4o_0shot" for folder in folders):
        lines += ["", f"Standard error of GPT-4o's strict accuracy: {', '.join(f'{k} {v:.4f}' for k, v in errors.items())}."]
    return lines


def notebook_page(root: Path, checks: list[bool]) -> list[str]:
    """Every figure that VIEScore's notebook prints of the editing tasks, beside ours with the raters in its author's order."""
    places = [path.parent for path in root.rglob(NOTEBOOK) if (path.parent / "_answers" / GEMINI).is_dir()]
    if not places:
        return []
    cells = json.loads((places[0] / NOTEBOOK).read_text("utf-8"))["cells"]
    told = next(cell["outputs"] for cell in cells if "".join(cell["source"]) == "iterate_all_results_corr(use_spearmanr=1)")
    printed = _printed("".join(line for output in told for line in output.get("text", [])))
    wrong = []
    for task in viescore_pairs.TASKS:
        data = viescore_pairs.load(places[0], GEMINI, task)
        for aspect in viescore_pairs.ASPECTS:
            rhos = {editor: viescore_pairs.notebook_rho(data, editor, aspect, RATERS.get(task, ())) for editor in data.editors}
            for name, value in {**rhos, "": mean_correlation(list(rhos.values())).tanh_of_mean}.items():
                same = value is not None and float(f"{value:.4f}") == printed[task, name, aspect]
                checks.append(same)
                wrong += [] if same else [f"{task} {name} {aspect}"]
    followed = (
        f"{len(printed) - len(wrong)} of the {len(printed)} figures that VIEScore's notebook prints of the editing tasks (Gemini: rho of"
    )
    told_wrong = f" Not so: {', '.join(wrong)}." if wrong else ""
    return ["", followed, f"SC, PQ and O of 15 editors, and their means) follow to the last digit, with the raters of {RATED}.{told_wrong}"]


def _printed(text: str) -> dict[tuple[str, str, str], float]:
    """{(task, editor or "" for the mean, aspect): rho}."""
    found, task, editor = {}, "", ""
    for line in text.splitlines():
        if head := re.match(r"=+> (\S+)( :)?", line):
            task, editor = (task, head[1]) if head[2] else (head[1], "")
        elif cell := re.match(r"(?:ImagenHub_\S+ \|)?(SC|PQ|O)\| (\S+)", line):
            found[task, "" if line.startswith("ImagenHub") else editor, cell[1]] = float(cell[2])
    return {key: value for key, value in found.items() if key[0] in viescore_pairs.TASKS}


def genai_page(root: Path, checks: list[bool]) -> list[str]:
    files = sorted(path for path in root.rglob("pairwise.json") if path.parent.parent.name in GENAI_FOLDERS)
    if not files:
        return []
    lines = [
        "",
        "## GenAI-Bench, image editing",
        "",
        "919 pairs, four labels, read by four rules; official is the benchmark's own and the one that was published. Decisive:",
        "strict accuracy on the 503 pairs where people chose a side, by the first label.",
        "",
        row("judge", "published", "official", "first", "last", "unambiguous", "unread (official)", "decisive"),
        row(*["---"] * 8),
    ]
    for path in files:
        found = {m.protocol: m for m in genai_bench.metrics(genai_bench.read_answers(path))}
        official, *others = (found[f"genai-bench/4-label/{rule}"] for rule in genai_bench.RULES)
        decisive = found["genai-bench/decisive/strict"]
        name = path.parent.name
        lines.append(
            row(
                name,
                published(name, GENAI_PUBLISHED, percent(official), checks),
                percent(official) + interval(official),
                *(percent(metric) for metric in others),
                str(official.num_unscored),
                percent(decisive) + interval(decisive),
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds the clones, at any depth")
    parser.add_argument("--out", type=Path, help="write the page here")
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    args = parser.parse_args()

    checks: list[bool] = []
    body = [
        *viescore_page(args.folder, args.seed, checks),
        *notebook_page(args.folder, checks),
        *genai_page(args.folder, checks),
    ]
    if not body:
        raise SystemExit(f"no raw answers below {args.folder}; see --help for the two repositories")
    page = HEAD + "\n".join(body) + "\n"
    print(page)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page, "utf-8")
    same = sum(checks)
    goal = f"all {len(checks)}"
    result = {"measure": "published figures reproduced", "value": same, "n": len(checks), "goal": goal, "holds": same == len(checks)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
