"""The checks of a recipe against its policy, before anything is trained."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from vrft.errors import PolicyError
from vrft.knowledge import UNRELATED, Injection
from vrft.policies import from_recipe
from vrft.policies.from_recipe import check_budget
from vrft.recipe import read_recipe
from vrft.sample import Sample


def test_the_prompts_at_test_must_fit_the_budget_of_knowledge_too(small_recipe: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = read_recipe(small_recipe, ["knowledge={card: retinamnist, max_tokens: 5}", "arms=[rft+PA_p, irrelevant]"])
    injection = Injection({"0": "none", "1": "some"}, other=UNRELATED)
    sample = Sample("a", Path("a.png"), "Which grade?", 0, "test")
    longer = UNRELATED[0].split()[0]
    tokenizer = lambda text: SimpleNamespace(input_ids=range(6 if longer in text else 5))  # noqa: E731
    monkeypatch.setattr(from_recipe, "_pretrained", lambda *_: tokenizer)
    with pytest.raises(PolicyError, match=r"takes 6 tokens \(irrelevant\), and knowledge.max_tokens is 5"):
        check_budget(recipe, injection, sample)
    check_budget(recipe.model_copy(update={"arms": ["rft+PA_p"]}), injection, sample)
