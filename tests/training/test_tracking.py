"""What a training stage leaves behind and finds again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from editr1.training.trainer import resume_point


def test_the_newest_whole_checkpoint_is_resumed_and_torn_ones_go(tmp_path: Path) -> None:
    for step, state in ((2, "{}"), (10, "{}"), (20, '{"epoch": 1'), (30, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-best").mkdir()
    assert resume_point(tmp_path) == str(tmp_path / "checkpoint-10")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2", "checkpoint-best"]
    assert resume_point(tmp_path / "nowhere") is None


def test_no_file_of_the_room_imports_a_library_that_reports_its_use() -> None:
    code = "import editr1.training.options, huggingface_hub.constants as hub; print(hub.HF_HUB_DISABLE_TELEMETRY)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "True"
