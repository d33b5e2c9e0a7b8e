"""The reference of the KL term is the policy that a stage starts from, whatever that is and whatever happened since."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, TrainerCallback
from trl.trainer.grpo_trainer import use_adapter

from vrft.data import PhantomSource
from vrft.policies import TINY, load_policy, quiet_libraries
from vrft.policies.decoding import model_inputs
from vrft.policies.from_recipe import load_for
from vrft.policies.loading import LoadedPolicy
from vrft.progress import Reporter
from vrft.recipe import Recipe, RftStage, read_recipe
from vrft.runs import StageDirectory, read_json, read_jsonl
from vrft.sample import open_image
from vrft.tasks import Grading
from vrft.training import train_rft
from vrft.training.stage import finish_stage

STAGE = RftStage(
    kind="rft",
    steps=3,
    prompts_per_step=1,
    group_size=4,
    max_completion_tokens=12,
    temperature=2.0,
    rewards={"fuzzy": 1.0, "format": 0.5},
    learning_rate=1e-3,
    save_every=1,
)
LORA = "lora: {rank: 4, alpha: 8.0, targets: [q_proj, v_proj]}"
MERGED = LORA.replace("}", ", between_stages: merge}")


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Policies that are not the embedded one: adapters far from it, and whole weights."""
    quiet_libraries()
    folder, policy = tmp_path_factory.mktemp("starts"), load_policy("tiny")
    torch.manual_seed(0)
    for one in policy.model.parameters():
        one.data.mul_(1 + 0.05 * torch.randn_like(one))
    policy.model.save_pretrained(folder / "whole")
    policy.model.to(torch.bfloat16).save_pretrained(folder / "half")
    adapted = load_policy("tiny")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["k_proj", "o_proj"], init_lora_weights=False)
    get_peft_model(adapted.model, config).save_pretrained(folder / "adapter")
    for name in ("whole", "half", "adapter"):
        policy.processor.save_pretrained(folder / name)
    adapted.model.config.save_pretrained(folder / "adapter")
    return {name: folder / name for name in ("whole", "half", "adapter")}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weights that are loaded, by name."""
    seen: list[str] = []
    plain: Any = PreTrainedModel.from_pretrained

    def counted(cls: type, name: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(str(name))
        return plain.__func__(cls, name, *arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted))
    return seen


def train(policy: LoadedPolicy, place: StageDirectory, reporter: Reporter | None = None) -> None:
    source = PhantomSource("grading", family="shifted", sizes={"train": 6, "validation": 0, "test": 0})
    place.path.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"seed": 0, "reporter": reporter or Reporter(quiet=True)}
    train_rft(policy, STAGE, Grading(5), list(source.samples("train")), place, **options)


def log_probabilities(policy: LoadedPolicy, model: Any = None) -> torch.Tensor:
    """Of every token of a prompt, in float32."""
    model = model or policy.model
    model.eval()
    sample = next(iter(PhantomSource("grading", sizes={"train": 1, "validation": 0, "test": 0}).samples("train")))
    inputs = model_inputs(policy, ["Which grade is it?"], [open_image(sample.images[0])])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=policy.compute == torch.bfloat16):
        return model(**inputs).logits.float().log_softmax(-1)


def reference_of(trainer: Any, policy: LoadedPolicy) -> torch.Tensor:
    """What the trainer compares with, as TRL finds it."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.ref_model is not None:
        return log_probabilities(policy, trainer.ref_model)
    with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
        return log_probabilities(policy, model)


@pytest.fixture
def recipe_of(small_recipe: Path, starts: dict[str, Path]) -> Callable[[str], Recipe]:
    def made(keys: str) -> Recipe:
        for name, path in starts.items():
            keys = keys.replace(name.upper(), str(path))
        return read_recipe(small_recipe, [f"policy={{{keys}}}"])

    return made


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, torch.Tensor]]:
    """The reference model of each stage, where it is one of its own, and what the reference says after training."""
    seen: list[tuple[Any, torch.Tensor]] = []

    def begun(trainer: Any, policy: LoadedPolicy, *rest: Any) -> Any:
        class Asks(TrainerCallback):
            def on_train_end(self, *arguments: Any, **options: Any) -> None:
                seen.append((trainer.ref_model, reference_of(trainer, policy)))

        trainer.add_callback(Asks())
        return finish_stage(trainer, policy, *rest)

    monkeypatch.setattr("vrft.training.rft.finish_stage", begun)
    return seen


@pytest.mark.parametrize(
    ("keys", "stages", "kill"),
    [
        pytest.param("model: tiny", 1, False, id="tiny"),
        pytest.param("model: tiny", 1, True, id="tiny-resumed"),
        pytest.param("model: tiny", 2, False, id="tiny-second-stage"),
        pytest.param("model: tiny, dtype: bfloat16", 1, False, id="tiny-bfloat16"),
        pytest.param("model: ADAPTER", 1, False, id="adapter"),
        pytest.param("model: ADAPTER", 1, True, id="adapter-resumed"),
        pytest.param("model: WHOLE, trust_remote_code: true", 1, True, id="whole-trusted-resumed"),
        pytest.param(f"model: tiny, {LORA}", 1, True, id="adapters-on-tiny-resumed"),
        pytest.param(f"model: HALF, dtype: bfloat16, {LORA}", 1, False, id="adapters-on-half"),
        pytest.param(f"model: ADAPTER, {LORA}", 1, True, id="adapters-on-adapter-resumed"),
        pytest.param(f"model: ADAPTER, {LORA}", 2, True, id="adapters-continued-resumed"),
        pytest.param(f"model: WHOLE, {MERGED}", 2, False, id="adapters-merged"),
    ],
)
def test_the_reference_is_the_policy_that_the_stage_starts_from(
    tmp_path: Path,
    recipe_of: Callable[[str], Recipe],
    references: list[tuple[Any, torch.Tensor]],
    loads: list[str],
    keys: str,
    stages: int,
    kill: bool,
    kill_after: Callable[[int], Reporter],
):
    recipe = recipe_of(keys)
    before = None
    if stages == 2:
        first = StageDirectory(tmp_path / "first")
        train(load_for(recipe, None, training=True), first)
        before = first.policy
    place = StageDirectory(tmp_path / "stage")
    start = log_probabilities(load_for(recipe, before, training=True))
    evaluated = log_probabilities(load_for(recipe, before))
    assert (start - evaluated).abs().max() < (0.2 if "bfloat16" in keys else 2e-4)
    if kill:
        with pytest.raises(KeyboardInterrupt):
            train(load_for(recipe, before, training=True), place, kill_after(2))
    policy = load_for(recipe, before, training=True)
    weights = {name: one.clone() for name, one in policy.model.state_dict().items()}
    loads.clear()
    train(policy, place)
    assert loads == ([str(place.path / "checkpoint-1")] if kill and "lora" not in keys else [])

    reference, said = references[-1]
    log = read_jsonl(place.log)
    assert log[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert log[-1]["kl"] > 1e-6
    assert torch.equal(said, start)
    if "lora" not in keys:
        kept = reference.state_dict()
        assert kept.keys() == weights.keys()
        assert all(torch.equal(kept[name], one) for name, one in weights.items())
        assert not any(one.requires_grad for one in reference.parameters())
    assert not torch.equal(log_probabilities(policy), start)


@pytest.fixture
def on_the_hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """The embedded policy by the name `org/name`; what is asked of the hub, from where, and with which revision."""
    asked: list[tuple[str, str, Any]] = []

    def instead(kind: Any) -> None:
        plain = kind.from_pretrained

        def asking(name: Any, *arguments: Any, **options: Any) -> Any:
            if str(name) != "org/name":
                return plain(name, *arguments, **options)
            asked.append((kind.__name__, str(name), options.pop("revision", None)))
            made = plain(TINY, *arguments, **options)
            if isinstance(made, PreTrainedModel):
                made.config._name_or_path = made.name_or_path = "org/name"
            return made

        monkeypatch.setattr(kind, "from_pretrained", asking)

    for kind in (AutoConfig, AutoModelForImageTextToText, AutoProcessor):
        instead(kind)
    return asked


@pytest.mark.parametrize("options", [{}, {"training": True}, {"training": True, "lora": LoraConfig()}])
def test_the_revision_is_asked_of_the_hub_for_all_that_is_loaded(
    on_the_hub: list[tuple[str, str, Any]], options: dict[str, Any]
):
    load_policy("org/name", revision="v1", **options)
    kinds = {kind for kind, _, _ in on_the_hub}
    assert kinds >= {"AutoModelForImageTextToText", "AutoProcessor"}
    assert {(name, revision) for _, name, revision in on_the_hub} == {("org/name", "v1")}


@pytest.mark.parametrize("lora", ["", f", {LORA}"], ids=["whole", "adapters"])
def test_a_stage_asks_for_its_policy_once_with_its_revision_and_adapters_remember_it(
    tmp_path: Path,
    recipe_of: Callable[[str], Recipe],
    on_the_hub: list[tuple[str, str, Any]],
    loads: list[str],
    lora: str,
):
    recipe, place = recipe_of(f"model: org/name, revision: v1{lora}"), StageDirectory(tmp_path / "stage")
    policy = load_for(recipe, None, training=True)
    assert (len(loads), [kind for kind, *_ in on_the_hub].count("AutoModelForImageTextToText")) == (1, 1)
    train(policy, place)
    assert len(loads) == 1  # the reference is no second one
    assert {(name, revision) for _, name, revision in on_the_hub} == {("org/name", "v1")}
    if not lora:
        return
    facts = read_json(place.policy / "adapter_config.json")
    assert (facts["base_model_name_or_path"], facts["revision"]) == ("org/name", "v1")
    on_the_hub.clear()
    for again in (load_policy(str(place.policy)), load_for(recipe, place.policy)):
        assert isinstance(again.model, PeftModel)
        assert torch.equal(log_probabilities(again), log_probabilities(policy))
    assert {(name, revision) for _, name, revision in on_the_hub} == {("org/name", "v1")}
