"""The rewards as other trainers call them; signatures from the documentation of each."""

import importlib.util
import inspect
import json
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vrft.rewards import REWARDS
from vrft.rewards.adapters import easyr1, ms_swift, verl
from vrft.rewards.adapters.trl import reward_functions

LABELS = {"kind": "classification", "labels": ["benign", "malignant"]}
RIGHT, WRONG = "<think>x</think><answer>benign</answer>", "<think>x</think><answer>malignant</answer>"
BOX = {"target": [[1, 2, 3, 4]], "task": {"kind": "localization", "frame": "pixel"}, "image_size": [10, 10]}


def load_from_path(module: ModuleType) -> ModuleType:
    """As verl and EasyR1 do: by the path of the file, under a name of their own."""
    spec = importlib.util.spec_from_file_location("custom_module", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# --- TRL ------------------------------------------------------------------------------------------------------------


def test_trl_gets_a_named_function_for_each_reward():
    accuracy, formatted = reward_functions(LABELS, ["accuracy", "format"])
    assert (accuracy.__name__, formatted.__name__) == ("accuracy_reward", "format_reward")
    messages = [[{"role": "assistant", "content": text}] for text in (RIGHT, WRONG)]
    call = {"prompts": ["", ""], "completions": messages, "completion_ids": [[1], [2]], "target": ["benign", "benign"]}
    state = SimpleNamespace(global_step=1, max_steps=2)
    assert accuracy(**call, trainer_state=state, log_extra=None, log_metric=None) == [1.0, 0.0]
    assert formatted(**call, trainer_state=state, log_extra=None, log_metric=None) == [1.0, 1.0]


def test_trl_functions_bind_options_and_refuse_what_does_not_apply():
    (fuzzy,) = reward_functions({"kind": "grading", "levels": 5}, ["fuzzy"], schedule="geometric")
    assert fuzzy(prompts=[""], completions=["<answer>4</answer>"], target=[2]) == [0.0625]
    boxes = reward_functions(BOX["task"], ["iou"], threshold=(0.0, 1.0))
    state = SimpleNamespace(global_step=2, max_steps=2)
    columns = {"target": [BOX["target"]], "image_size": [[10, 10]], "trainer_state": state}
    assert boxes[0](prompts=[""], completions=["<answer>[1, 2, 3, 4]</answer>"], **columns) == [1.0]
    with pytest.raises(ValueError, match="'iou' does not apply to classification"):
        reward_functions(LABELS, ["iou"])


def test_trl_runs_the_rewards_as_they_are():
    from trl import GRPOTrainer

    assert "reward_funcs" in inspect.signature(GRPOTrainer.__init__).parameters
    for reward in REWARDS.values():
        assert inspect.signature(reward).parameters["completions"]
        assert inspect.signature(reward).parameters["columns"].kind is inspect.Parameter.VAR_KEYWORD


# --- verl -----------------------------------------------------------------------------------------------------------


def test_verl_calls_one_sample_by_keyword():
    score = load_from_path(verl).compute_score(
        data_source="lesions", solution_str=RIGHT, ground_truth="benign", extra_info={"task": LABELS, "index": 3}
    )
    assert (score["score"], score["accuracy"], score["format"]) == (1.5, 1.0, 1.0)
    assert math.isnan(score["iou"])  # verl wants the same keys of every sample


def test_verl_reads_what_comes_out_of_parquet():
    task = {"kind": "classification", "labels": np.array(["benign", "malignant"]), "levels": None, "synonyms": None}
    score = verl.compute_score("x", WRONG, "malignant", {"task": task, "image_size": None, "split": "train"})
    assert score["accuracy"] == 1.0
    boxes = {"task": BOX["task"], "image_size": np.array([10, 10])}
    right = "<think>x</think><answer>[1, 2, 3, 4]</answer>"
    for truth in ("[[1, 2, 3, 4]]", np.array([[1, 2, 3, 4]]), [[1, 2, 3, 4]]):
        assert verl.compute_score("x", right, truth, boxes)["iou"] == 1.0


def test_verl_batch_and_single_agree():
    truths, extras = (
        ["benign", "2", "[[1, 2, 3, 4]]"],
        [{"task": LABELS}, {"task": {"kind": "grading", "levels": 5}}, BOX],
    )
    texts = [RIGHT, "<answer>3</answer>", "<answer>[1, 2, 3, 4]</answer>"]
    weights = {"accuracy": 1.0, "fuzzy": 1.0, "iou": 2.0, "format": 0.5}
    batch = verl.compute_score_batch(
        data_sources=["x"] * 3, solution_strs=texts, ground_truths=truths, extra_infos=extras, weights=weights
    )
    rows = zip(texts, truths, extras, strict=True)
    single = [verl.compute_score("x", *row, weights=weights) for row in rows]
    assert str(batch) == str(single)  # NaN is not equal to itself
    assert [score["score"] for score in batch] == [1.5, 0.25, 2.0]
    assert all(set(score) == {"score", *weights} for score in batch)
    assert math.isnan(batch[0]["iou"])


def test_a_weight_that_cannot_be_paid_is_refused():
    with pytest.raises(ValueError, match="none of the weights iou applies"):
        verl.compute_score("x", RIGHT, "benign", {"task": LABELS}, weights={"iou": 1.0})


# --- EasyR1 ---------------------------------------------------------------------------------------------------------


def test_easyr1_calls_batches_and_single_inputs():
    module = load_from_path(easyr1)
    assert (module.REWARD_NAME, module.REWARD_TYPE) == ("vrft", "batch")
    inputs = [{"response": text, "response_length": 9, "ground_truth": "benign"} for text in (RIGHT, WRONG)]
    batch = module.compute_score(inputs, task=LABELS, weights={"accuracy": 0.9, "format": 0.1})
    assert [score["overall"] for score in batch] == pytest.approx([1.0, 0.1])
    assert batch == [module.compute_score(one, task=LABELS, weights={"accuracy": 0.9, "format": 0.1}) for one in inputs]


def test_easyr1_reads_the_whole_row_from_the_ground_truth():
    given = {"response": "<answer>[1, 2, 3, 4]</answer>", "response_length": 9, "ground_truth": json.dumps(BOX)}
    assert easyr1.compute_score(given) == {"overall": 1.0, "format": 0.0, "iou": 1.0, "f1": 1.0}


# --- ms-swift -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["swift.plugin", "swift.rewards"])
def test_ms_swift_finds_the_plugins_under_their_names(home: str, monkeypatch: pytest.MonkeyPatch):
    class ORM:
        def __call__(self, **kwargs: Any) -> list[float]:
            raise NotImplementedError

    registry: dict[str, type] = {}
    module = ModuleType(home)
    module.ORM, module.orms = ORM, registry  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", ModuleType("swift"))
    monkeypatch.setitem(sys.modules, home, module)
    load_from_path(ms_swift)
    assert set(registry) == {f"vrft_{name}" for name in REWARDS}
    assert issubclass(registry["vrft_accuracy"], ORM)


def test_ms_swift_makes_a_plugin_without_arguments_and_calls_it_with_columns():
    made = ms_swift.PLUGINS["vrft_accuracy"]()
    columns = {
        "target": ["benign", "benign"],
        "labels": [LABELS["labels"]] * 2,
        "trainer_state": None,
        "messages": [[], []],
    }
    assert made([RIGHT, WRONG], **columns) == [1.0, 0.0]
    assert ms_swift.PLUGINS["vrft_format"](args=None)([RIGHT, "benign"], solution=["", ""]) == [1.0, 0.0]


# --- thinking models ------------------------------------------------------------------------------------------------

INSIDE = "x</think><answer>benign</answer>"


def test_every_adapter_takes_the_end_of_the_prompt():
    extra = {"task": LABELS, "prompt_end": "<think>\n"}
    assert verl.compute_score("d", INSIDE, "benign", {"task": LABELS})["format"] == 0.0
    assert verl.compute_score("d", INSIDE, "benign", extra)["format"] == 1.0
    assert verl.compute_score("d", INSIDE, "benign", {"task": LABELS}, prompt_end="<think>\n")["format"] == 1.0
    one = {"response": INSIDE, "response_length": 9, "ground_truth": "benign"}
    assert easyr1.compute_score(one, task=LABELS, prompt_end="<think>\n")["format"] == 1.0
    truth = json.dumps({"target": "benign", **extra})
    assert easyr1.compute_score({**one, "ground_truth": truth})["format"] == 1.0
    (formatted,) = reward_functions(LABELS, ["format"], prompt_end="<think>\n")
    assert formatted(prompts=[""], completions=[INSIDE], target=["benign"]) == [1.0]
    plugin = ms_swift.PLUGINS["vrft_format"]()
    assert plugin([INSIDE, INSIDE], solution=["benign"] * 2, prompt_end=["<think>\n", ""]) == [1.0, 0.0]
