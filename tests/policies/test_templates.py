"""What is told from a chat template: how it opens the policy's turn, and how it ends it."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoProcessor

from vrft.errors import PolicyError
from vrft.experiment.plan import make_plan
from vrft.policies import TINY, check_envelope
from vrft.policies.from_recipe import check_envelopes
from vrft.policies.templates import completion_end, prompt_end, render_prompt
from vrft.progress import Reporter
from vrft.recipe import Recipe, read_recipe

QUIET = Reporter(quiet=True)
OPENS = "{{ '<|im_start|>assistant\n"
"""How the generation prompt stands in the template of the embedded policy."""

QWEN3_THINKING = """\
{%- for message in messages -%}
{%- set text = message.content if message.content is string else message.content[-1].text -%}
{%- if message.role == 'assistant' -%}
{%- set reasons = text.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in text else '' -%}
{{ '<|im_start|>assistant\n<think>\n' + reasons + '\n</think>\n\n' + text.split('</think>')[-1] + '<|im_end|>\n' }}
{%- else -%}{{ '<|im_start|>' + message.role + '\n' + text + '<|im_end|>\n' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n<think>\n' }}{%- endif -%}"""
"""The rules of Qwen3's thinking models for the turns of this project."""

DEEPSEEK_R1 = """\
{%- for message in messages -%}
{%- set text = message.content if message.content is string else message.content[-1].text -%}
{%- if message.role == 'user' -%}{{ '<｜User｜>' + text }}{%- else -%}
{{ '<｜Assistant｜>' + text.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜><think>\n' }}{%- endif -%}"""
"""The same of DeepSeek-R1, which leaves the reasoning of earlier turns out."""


def processor_with(template: str | None = None, added: str = "") -> Any:
    """The processor of the embedded policy with another template, or with a text added to its generation prompt."""
    processor = AutoProcessor.from_pretrained(TINY)
    if added:
        assert OPENS in processor.chat_template
        template = processor.chat_template.replace(OPENS, OPENS + added)
    if template:
        processor.chat_template = processor.tokenizer.chat_template = template
    return processor


@pytest.mark.parametrize(
    ("added", "end"),
    [
        ("", ""),
        ("<think>\n", "<think>\n"),
        ("<think>", "<think>"),
        ("Well: <think>\n", "<think>\n"),
        ("<think>\n\n</think>\n\n", ""),  # thinking is switched off
        ("<|begin_of_thought|>", ""),
    ],
)
def test_the_open_tag_follows_from_the_template(added: str, end: str):
    assert prompt_end(processor_with(added=added)) == end


@pytest.mark.parametrize(
    ("template", "opened", "ended"),
    [
        (None, "", "<|im_end|>\n"),
        (QWEN3_THINKING, "<think>\n", "<|im_end|>\n"),
        (DEEPSEEK_R1, "<think>\n", "<｜end▁of▁sentence｜>"),
    ],
)
def test_both_ends_of_the_turn_are_those_of_the_template(template: str | None, opened: str, ended: str):
    processor = processor_with(template)
    assert (prompt_end(processor), completion_end(processor)) == (opened, ended)
    shown = [
        {"role": "user", "content": [{"type": "text", "text": "Think inside <think></think>, or <think> <answer>"}]}
    ]
    assert render_prompt(processor, shown).endswith(opened)


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no roles') }}", "{% if %}"])
def test_a_template_that_is_missing_or_broken_is_an_error(template: str | None):
    processor = processor_with()
    processor.chat_template = processor.tokenizer.chat_template = template
    for text_of_template in (prompt_end, completion_end):
        with pytest.raises(PolicyError, match=r"^policy\.model '.*': its chat template cannot be applied \("):
            text_of_template(processor)


def recipe_with(processor: Any, folder: Path, envelope: str, stage: str) -> Recipe:
    """A recipe whose policy has this processor, and no weights."""
    AutoConfig.from_pretrained(TINY).save_pretrained(folder / "policy")
    processor.save_pretrained(folder / "policy")
    (folder / "recipe.yaml").write_text(f"""
name: plain
data: {{source: phantom, samples: {{train: 2, validation: 1, test: 2}}}}
task: {{kind: classification, envelope: {envelope}}}
policy: {{model: {folder / "policy"}}}
stages: [{{kind: {stage}, steps: 1}}]
arms: [{stage}]
""")
    return read_recipe(folder / "recipe.yaml", [])


def test_a_processor_without_templates_is_an_error_before_training(tmp_path: Path):
    processor = processor_with()
    processor.chat_template = processor.tokenizer.chat_template = None
    recipe = recipe_with(processor, tmp_path, "no-think", "rft")
    for check in (check_envelopes, lambda recipe: make_plan(recipe, "h100", reporter=QUIET)):
        with pytest.raises(PolicyError, match="its chat template cannot be applied"):
            check(recipe)


def test_a_plan_does_not_count_the_tag_that_the_template_opens(tmp_path: Path):
    lengths = []
    for added in ("", "<think>\n"):
        folder = tmp_path / f"opens-{bool(added)}"
        folder.mkdir()
        recipe = recipe_with(processor_with(added=added), folder, "think-answer", "sft")
        plan = make_plan(recipe, "h100", reporter=QUIET)
        lengths.append(plan.rows[0].lengths.completion)
    assert lengths[0] > lengths[1]


def test_an_envelope_that_the_template_rules_out_is_refused():
    check_envelope("m", "<think>\n", "think-answer")
    check_envelope("m", "", "no-think")
    with pytest.raises(
        PolicyError, match=r"'m': the prompt leaves <think> open, and the envelope no-think begins with"
    ):
        check_envelope("m", "<think>\n", "no-think")
