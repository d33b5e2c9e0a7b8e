"""Have a language model write a card, which no person has checked yet.

The model is any function from a prompt to a text. Its reply is parsed as JSON and checked as every card is; a reply
with faults goes back with a list of them, a few times. Prompts and replies are always saved.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, get_args

import yaml

from vrft.errors import KnowledgeError, UserError
from vrft.knowledge.card import Attribute, check_against, read_card

Ask = Callable[[str], str]
"""From a prompt to the reply of the model."""


@dataclass(frozen=True)
class CardRequest:
    """The card to be written.

    Args:
        title: the subject of the images.
        modality: how they were taken.
        classes: the labels of the data, as they are.
    """

    title: str
    modality: str
    classes: Sequence[str]


def card_prompt(request: CardRequest) -> str:
    """The prompt for the model: the images, the classes, the form of the reply and the rules."""
    attributes = ", ".join(get_args(Attribute))
    classes = "\n".join(f"- {label}" for label in request.classes)
    return f"""You describe classes of medical images for readers who must tell them apart.

Images: {request.title}
Modality: {request.modality}
Classes, to be used exactly as they are written:
{classes}

Reply with one JSON object and nothing else:
{{
  "sources": {{"short_name": "full citation of a work that can be looked up"}},
  "biases": ["what is one-sided about the descriptions or their sources"],
  "classes": {{
    "CLASS": {{
      "synonyms": ["another name of the class"],
      "description": {{"ATTRIBUTE": "One or two short sentences. [short_name]"}}
    }}
  }}
}}

Rules: each ATTRIBUTE is one of {attributes}. Say only what can be seen in such an image. Every sentence
is followed by the short name of its source in square brackets. Name no patient and no single image."""


def write_card(ask: Ask, request: CardRequest, path: Path, *, model: str, licence: str, attempts: int = 3) -> Path:
    """Ask for a card until a reply has no fault, write it, and return its path.

    Args:
        ask: the model.
        request: the card to be written.
        path: of the card, ``NAME.yaml``; ``NAME.prompt.txt`` (``prompt-K`` asks for corrections) and
            ``NAME.reply-K.txt`` are saved beside it.
        model: the name and version of the model, for the card.
        licence: of the card.
        attempts: replies that are read before giving up.

    Raises:
        UserError: the card exists already, the model cannot be reached, or all replies have faults; the last draft is
            saved as ``NAME.draft.yaml``.
    """
    if path.exists():
        raise UserError(f"{path} exists already; choose another --out, or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in (*path.parent.glob(f"{path.stem}.reply-*.txt"), *path.parent.glob(f"{path.stem}.prompt*.txt")):
        old.unlink()  # of an earlier attempt that failed
    text = prompt = card_prompt(request)
    for attempt in range(1, attempts + 1):
        _beside(path, "prompt" if attempt == 1 else f"prompt-{attempt}").write_text(text, encoding="utf-8")
        reply = ask(text)
        _beside(path, f"reply-{attempt}").write_text(reply, encoding="utf-8")
        try:
            _save(_parse(reply), request, path, model, licence)
        except (KnowledgeError, ValueError) as error:
            faults = str(error)
            text = f"{prompt}\n\nYour last reply was:\n{reply}\n\nIt cannot be used:\n{faults}\nReply again, corrected."
        else:
            return path
    raise UserError(
        f"no sound card in {attempts} replies of {model}; of the last: {faults}\n"
        f"The replies are kept as {_beside(path, 'reply-*')}."
    )


def _save(content: dict[str, Any], request: CardRequest, path: Path, model: str, licence: str) -> None:
    """Check the content of a reply as every card is checked, and put it in its place."""
    draft = path.with_name(f"{path.stem}.draft.yaml")
    draft.write_text(_yaml(content, request, model, licence), encoding="utf-8")
    check_against(read_card(draft), draft.name, request.classes)
    os.replace(draft, path)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.stem}.{what}.txt")


def _parse(reply: str) -> dict[str, Any]:
    """The JSON object in a reply, which may stand in a fence or between sentences; ValueError without one."""
    decoder = json.JSONDecoder()
    for match in list(re.finditer(r"\{", reply))[:50]:
        try:
            found, _ = decoder.raw_decode(reply, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and "classes" in found:
            return found
    raise ValueError('the reply holds no JSON object with "classes"')


def _yaml(content: dict[str, Any], request: CardRequest, model: str, licence: str) -> str:
    """The card as YAML: the content from the model, and the provenance from us."""
    card = {
        "title": request.title,
        "modality": request.modality,
        "written_by": {"kind": "model", "name": model},
        "checked_by": None,
        "date": date.today(),
        "licence": licence,
        **{key: content.get(key) for key in ("sources", "biases", "classes")},
    }
    return yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=110)


def endpoint(model: str, url: str, *, key: str = "", timeout: float = 120.0, retries: int = 4) -> Ask:
    """A model behind an OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp, or hosted.

    Args:
        model: the name that the endpoint knows it by.
        url: of the endpoint, for example ``http://localhost:8000/v1``.
        key: sent as bearer token; local servers need none.
        timeout: seconds for one reply.
        retries: further tries after a time-out, a rate limit or a fault of the server, with growing pauses.

    Raises:
        UserError: the package ``openai`` is missing; on a call: the endpoint cannot be reached or refuses.
    """
    try:
        import openai
    except ImportError:
        raise UserError("an endpoint needs the package openai; pip install 'vrft[llm]'.") from None
    client = openai.OpenAI(base_url=url, api_key=key or "none", timeout=timeout, max_retries=retries)

    def ask(prompt: str) -> str:
        try:
            message: Any = {"role": "user", "content": prompt}
            reply = client.chat.completions.create(model=model, messages=[message], temperature=0.0)
            return reply.choices[0].message.content or ""
        except openai.APITimeoutError:
            raise UserError(
                f"{url} did not reply within {timeout:g} s, {retries + 1} times; raise --timeout."
            ) from None
        except openai.APIConnectionError as error:
            raise UserError(f"{url} cannot be reached ({error.__cause__ or error}); is the server running?") from None
        except openai.RateLimitError:
            raise UserError(f"{url} refuses more requests, {retries + 1} times in a row; try again later.") from None
        except openai.APIStatusError as error:
            raise UserError(f"{url} refuses the request: {error.status_code} {error.message}.") from None
        except (openai.OpenAIError, ValueError, AttributeError, IndexError, TypeError) as error:
            raise UserError(f"{url} does not answer as an OpenAI-compatible endpoint does ({error}).") from None

    return ask
