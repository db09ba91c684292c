"""Every formula and figure of docs/how_to/collapse.md, computed anew."""

import re
import sys
from pathlib import Path

import pytest

from editr1.objectives.schedule import flux_schedule
from editr1.objectives.sde import kl_weight, make_step

sys.path.insert(0, str(Path(__file__).parents[1] / "objectives"))
import test_sde as flows

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "collapse.md").read_text(encoding="utf-8")
SAMPLERS = re.findall(r"^\| (ODE|\w+ (?:a|eta) = [.\d]+) \| ([.\d]+) \| ([.\d]+) \|$", PAGE, re.MULTILINE)
WEIGHTS = dict(re.findall(r"^\| `(latent_\w+|velocity)` \| `?([^`|,]+?)`?(?:,[^|]*)? \|", PAGE, re.MULTILINE))


def test_the_tables_were_found():
    assert len(SAMPLERS) == 4
    assert WEIGHTS.keys() == {"latent_dtfree", "latent_true", "velocity"}


@pytest.mark.parametrize(("name", "spread", "leftover"), SAMPLERS)
def test_the_table_of_samplers(name, spread, leftover):
    kind, _, level = ("ode", "", "0") if name == "ODE" else name.replace(" a = ", "=").replace(" eta = ", "=").partition("=")
    schedule = flux_schedule(10, 1024)
    assert flows.propagate(kind, schedule, float(level))[1] == pytest.approx(float(spread), abs=6e-4)
    assert flows.noise_before_last_step(kind, schedule, float(level)) == pytest.approx(float(leftover), abs=6e-3)


@pytest.mark.parametrize("kind", ["latent_dtfree", "latent_true", "velocity"])
def test_the_table_of_kl_conventions(kind):
    step = make_step("flow_sde", 0.652, 0.484, 0.9)
    names = {"v_weight": step.v_weight, "std": step.std, "dt": step.dt}
    formula = re.sub(r"(\d) (\w)", r"\1 * \2", WEIGHTS[kind]).replace("^", "**")
    assert kl_weight(kind, step) == pytest.approx(eval(formula, {"abs": abs, "__builtins__": {}}, names))  # our own page
