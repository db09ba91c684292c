"""What makes a judge a good reward: known answers, and the command over files and over a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from editr1.cli import main
from editr1.errors import DataError
from editr1.flow.rewarding import reward_table, signal_share
from editr1.measure.groups import ScoredEdit, noise_share, signal_metrics
from editr1.schema import Reward


def by_protocol(groups: dict[str, list[ScoredEdit]]) -> dict[str, float | None]:
    return {metric.protocol.removeprefix("signal/"): metric.value for metric in signal_metrics(groups)}


def test_known_answers() -> None:
    groups = {
        "s": [ScoredEdit(8.0, (), 2.0), ScoredEdit(4.0, (), 1.0), ScoredEdit(6.0, (), 1.5)],  # right order
        "t": [ScoredEdit(5.0, (), 0.0), ScoredEdit(5.0, (), 1.0)],  # a tie
        "u": [ScoredEdit(1.0, (), 0.0)],  # alone: no group
    }
    found = by_protocol(groups)
    assert found["spread"] == pytest.approx((2.0 + 0.0) / 2)
    assert found["flat"] == 0.5
    assert found["noise"] is None
    assert (found["order/half"], found["order/strict"], found["order/non-tied"]) == (3.5 / 4, 3 / 4, 1.0)
    # the scores deviate by 2, -2, 0, 0, 0 and the truth by a half each, and 0 once
    assert found["advantage"] == pytest.approx(2 / np.sqrt(8 * 1.0))
    with pytest.raises(DataError, match="no group has two scored edits"):
        signal_metrics({"u": groups["u"]})


def test_a_judge_that_tells_nothing_apart_has_no_correlation_with_the_truth() -> None:
    # The mean of three 6.9 is not 6.9 to the last bit.
    found = by_protocol({str(i): [ScoredEdit(6.9, (6.9, 6.9), truth) for truth in (0.0, 0.5, 1.0)] for i in range(8)})
    assert found["flat"] == 1.0
    assert found["noise"] is found["advantage"] is found["advantage/group-std"] is None


def test_noise_is_what_editor_rl_logs_as_lost_signal() -> None:
    rewards = [Reward(value, 2, 2, scores=(value - 1.0, value + 1.0)) for value in (8.0, 6.0, 4.0, 8.0)]
    edits = [ScoredEdit(reward.value, reward.scores) for reward in rewards]
    found = noise_share([edits[:2], edits[2:]], np.random.default_rng(0))
    assert found is not None
    assert found.value == pytest.approx(1 - signal_share(reward_table(rewards, 2), rewards))


def test_agreement_of_few_traces_tells_a_judge_from_a_die() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(5, 2, size=(40, 4))

    def groups(noise: float) -> dict[str, list[ScoredEdit]]:
        draws = truth[..., None] + noise * rng.normal(size=(40, 4, 4))
        return {
            str(g): [ScoredEdit(float(x.mean()), tuple(x.tolist()), float(t)) for x, t in zip(draws[g], truth[g], strict=True)]
            for g in range(40)
        }

    sharp, blunt = by_protocol(groups(0.3)), by_protocol(groups(30.0))
    assert sharp["agreement/k1"] > 0.9 > 0.6 > blunt["agreement/k1"]
    assert sharp["agreement/k2"] >= sharp["agreement/k1"] - 0.02
    assert sharp["noise"] < 0.05 < 0.8 < blunt["noise"]
    assert sharp["advantage"] > 0.95


def test_the_command_over_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"e{i},s{i // 4},{{}},{i % 4}\n" for i in range(32))
    good, bad = (tmp_path / f"{name}.csv" for name in ("good", "bad"))
    for path, sign in ((good, 1), (bad, -1)):
        path.write_text("key,cluster,value,human\n" + rows.format(*(5 + sign * (i % 4) for i in range(32))))
    assert main(["signal", str(good), "--json"]) == 0
    found = {row["protocol"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (found["signal/order/strict"]["value"], found["signal/advantage"]["value"]) == (1.0, pytest.approx(1.0))
    assert (found["signal/spread"]["num_clusters"], found["signal/order/strict"]["n"]) == (8, 48)
    assert main(["signal", str(good), str(bad)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["judge", "spread", "flat"]
    assert [line[0] for line in lines[1:3]] == ["good", "bad"]
    assert main(["signal", str(good), "--truth", str(bad), "--json"]) == 0
    assert {row["protocol"]: row["value"] for row in map(json.loads, capsys.readouterr().out.splitlines())}["signal/order/strict"] == 0.0


@pytest.mark.parametrize("argv", [["signal"], ["signal", "x", "--judged", "t"], ["signal", "--judged", "t"], ["signal", "nowhere.csv"]])
def test_what_cannot_be_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
