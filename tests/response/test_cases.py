"""What models really write, and what must be made of it."""

from typing import Any

import pytest

from vrft.rewards import APPLIES, REWARDS
from vrft.tasks import read_section, task_from

Case = dict[str, Any]


def test_every_real_completion_is_read_as_wanted(cases: list[Case]):
    assert len(cases) >= 109
    for case in cases:
        task = task_from(read_section(case["task"]))
        reading = task.read(case["completion"], case.get("image_size"), case.get("processed_size"))
        answer = [list(box) for box in reading.answer] if isinstance(reading.answer, tuple) else reading.answer
        assert answer == case["want"]["answer"], case["id"]
        assert bool(reading.problems) == bool(case["want"]["problems"]), case["id"]


def test_every_real_completion_earns_what_is_wanted(cases: list[Case]):
    checked = 0
    for case in cases:
        task = task_from(read_section(case["task"]))
        columns = task.columns | {key: case[key] for key in ("image_size", "processed_size", "schedule") if key in case}
        for name, reward in REWARDS.items():
            if name in case["want"]:
                assert task.kind in APPLIES[name], case["id"]
                (paid,) = reward([case["completion"]], target=[case["target"]], **columns)
                assert paid == pytest.approx(case["want"][name], abs=1e-3), (case["id"], name)
                checked += 1
    assert checked >= 2 * len(cases)
