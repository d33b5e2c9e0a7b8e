"""Questions about single samples: the answer, the reasoning before it, and how sure the policy is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from vrft.data.unreadable import readable
from vrft.errors import UserError
from vrft.evaluation.predictions import prediction
from vrft.image_log import ImageLog
from vrft.images import Axis, Window, image_warnings
from vrft.policies import LoadedPolicy, decode, frame_of, load_policy, place_of, quiet_libraries, token_probabilities
from vrft.policies.from_recipe import frame_for, load_arm
from vrft.recipe import build_task, open_knowledge, open_source, read_recipe, reading_of, skips_bad
from vrft.response import ORDERS, parse, scale_of
from vrft.runs import RunDirectory
from vrft.sample import Grey, ImageFile, ImageSource, Sample, in_grey, open_image
from vrft.tasks import Grading, Localization, TrainableTask, read_section, task_from

Files = Path | Sequence[Path]
"""The image file of a sample, or its several files in order."""

Asked = Iterator[tuple[Sample, dict[str, Any]]]
"""Samples, and what ``ask`` says of each."""

MAX_TOKENS = 256


def ask_run(
    directory: RunDirectory,
    images: Sequence[Files] = (),
    *,
    arm: str | None = None,
    seed: int | None = None,
    split: str | None = None,
    limit: int | None = None,
    question: str | None = None,
    max_tokens: int | None = None,
    window: Window | None = None,
    page: int | None = None,
    axis: Axis | None = None,
) -> Asked:
    """Ask an arm of a run, by default its last trained one, about image files or about a split of its data.

    The rows of a split also hold ``target``. Image files are read as the data of the run are, unless ``window``,
    ``page`` or ``axis`` is given (``read_image``).

    Raises:
        UserError: the run, the data or an image cannot be used, or nothing is asked about.
    """
    recipe = read_recipe(directory.recipe, [])
    source = open_source(recipe)
    task = build_task(recipe, source, frame=frame_for(recipe, recipe.task))
    reading = reading_of(recipe.data)
    window, page = window or reading["window"], reading["page"] if page is None else page
    axis = axis or reading.get("axis")
    samples = _files(images, question or recipe.task.question or source.question, window, page, axis)
    if split:
        asked = question or recipe.task.question
        known = (replace(one, question=asked or one.question) for one in source.samples(split))
        chosen = list(islice(known, limit))
        samples += readable(chosen, ImageLog()) if skips_bad(recipe.data) else chosen
    if not samples:
        raise UserError("there is nothing to ask about; name image files, or a split of the run.")
    quiet_libraries()
    trained = [name for name in recipe.arm_names() if recipe.stages_of(name)]
    asked_arm = arm or (trained or ["base"])[-1]
    task = recipe.task_of(asked_arm, task)
    policy = load_arm(recipe, directory, asked_arm, recipe.seeds[0] if seed is None else seed)
    if (injection := open_knowledge(recipe, source)) is not None:
        directory.check_knowledge(injection.facts())
        samples = [injection.apply(sample, recipe.condition_of(asked_arm).prompt) for sample in samples]
    if recipe.condition_of(asked_arm).image == "grey":
        samples = [in_grey(sample) for sample in samples]
    for sample in samples:
        row = ask(policy, task, sample, max_tokens=max_tokens or recipe.evaluation_tokens)
        yield sample, _shown(sample) | ({"target": sample.target} if sample.split else {}) | row


def ask_model(
    model: str,
    images: Sequence[Files],
    section: Mapping[str, Any],
    *,
    question: str | None,
    max_tokens: int | None = None,
    window: Window | None = None,
    page: int | None = None,
    axis: Axis | None = None,
) -> Asked:
    """Ask a policy about image files; the section ``task`` and the question say what.

    ``window``, ``page`` and ``axis`` say how the files are read (``read_image``).

    Raises:
        UserError: the task, the policy or an image cannot be used.
    """
    if not question:
        raise UserError('what is asked? give --question, such as "Where is the finding?"')
    if not images:
        raise UserError("there is nothing to ask about; name image files.")
    try:
        read = read_section(section)
        boxes = section["kind"] == "localization" and not section.get("frame")
        task = task_from(read, frame=frame_of(place_of(model)) if boxes else None)
    except ValueError as error:
        raise UserError(f"the options do not describe a task: {error}.") from None
    if not isinstance(task, TrainableTask):
        raise UserError(
            f"a {section['kind']} task cannot be asked yet; expected classification, grading or localization."
        )
    samples = _files(images, question, window, page, axis)
    quiet_libraries()
    policy = load_policy(model)
    for sample in samples:
        yield sample, _shown(sample) | ask(policy, task, sample, max_tokens=max_tokens or MAX_TOKENS)


def _files(
    images: Sequence[Files], question: str, window: Window | None, page: int | None, axis: Axis | None
) -> list[Sample]:
    """Samples of image files and of folders of DICOM series, without targets; one of several has the name of the first.

    Raises:
        UserError: one of them does not exist.
    """

    def source(path: Path) -> ImageSource:
        if not path.exists():
            raise UserError(f"{path}: there is no such file.")
        return ImageFile(path, window=window, page=page, axis=axis or "axial")

    samples = []
    for own in images:
        if isinstance(own, Path):
            samples.append(Sample(str(own), source(own), question, (), split=""))
        elif not own:
            raise UserError("a sample has no image files; name one or more.")
        else:
            facts = {"images": [str(path) for path in own]}
            samples.append(Sample(str(own[0]), tuple(map(source, own)), question, (), split="", facts=facts))
    return samples


def _shown(sample: Sample) -> dict[str, Any]:
    """What was shown: ``image``, the name of the sample or its file, or ``images``, its several files."""
    several = None if sample.split else sample.facts.get("images")
    return {"images": several} if several else {"image": sample.id}


def ask(policy: LoadedPolicy, task: TrainableTask, sample: Sample, *, max_tokens: int) -> dict[str, Any]:
    """Ask about one sample, whose target is not looked at.

    Returns:
        ``answer`` as it is read (None where it is not), ``name`` (of the grade, where names hold numerals, so that
        ``answer``, its index, is none of them), ``reasoning`` (the think block), ``confidence`` in [0, 1],
        ``problems`` (of the completion, and of the images: ``image_warnings``) and ``completion``; for a localization
        also ``boxes``, in pixels of the first image, and its ``image_size``.
        The confidence is the geometric mean of the probabilities of the answer's tokens after that reasoning: 1 where
        there was no doubt. It is no calibrated chance of being right, and None where no answer is read or the
        envelope is broken.
    """
    policy.model.eval()
    images = [open_image(source) for source in sample.images]
    size = images[0].size
    prompt = policy.prompt(task, sample, size)
    (tokens,) = decode(policy, [prompt], [images], max_tokens=max_tokens)
    text = str(policy.processor.batch_decode([tokens], skip_special_tokens=True)[0])
    end, processed = policy.prompt_end, policy.processed_size(size)
    row = prediction(task, sample, text, len(tokens), size, processed, prompt_end=end)
    envelope = parse(text, task.order, end)
    warnings = [
        warning
        for image, source in zip(images, sample.images, strict=True)
        if not isinstance(source, Grey)
        for warning in image_warnings(image)
    ]
    asked = {
        "answer": row["answer"],
        **_name(task, row["answer"]),
        "reasoning": envelope.think,
        "confidence": None,
        "problems": [*row["problems"], *dict.fromkeys(warnings)],
        "completion": text,
    }
    if row["answer"] is not None and row["well_formed"]:
        probabilities = token_probabilities(policy, prompt, images, tokens)
        decoded = policy.processor.tokenizer.decode
        span = answer_span(
            tokens, lambda ids: decoded(ids, skip_special_tokens=True), last=ORDERS[task.order][-1] == "answer"
        )
        asked["confidence"] = round(geometric_mean(probabilities[span]), 4)
    if isinstance(task, Localization):
        asked |= {"boxes": row["answer"], "image_size": list(size)}
    return asked


def _name(task: TrainableTask, grade: Any) -> dict[str, str | None]:
    """The name of a grade, where the names of a task hold numerals."""
    if not isinstance(task, Grading) or scale_of(task.levels, task.names).by_index:
        return {}
    return {"name": None if grade is None else task.written(grade)}


def answer_span(tokens: Sequence[int], text_of: Callable[[Sequence[int]], str], *, last: bool = True) -> slice:
    """Which tokens write the answer of a well-formed completion: those between ``<answer>`` and ``</answer>``.

    A token that holds part of a tag and part of the answer counts. ``last`` says that the answer follows the reasons,
    which may speak of the tag too.

    >>> pieces = ["<answer>", "no", "t", "</", "answer>"]
    >>> answer_span(range(5), lambda ids: "".join(pieces[i] for i in ids))
    slice(1, 3, None)
    """
    whole = text_of(tokens)
    found = (whole.rfind if last else whole.find)("<answer>")
    opened = found + len("<answer>") if found >= 0 else 0  # the prompt has opened it
    closed = whole.find("</answer>", opened)
    lengths = [len(text_of(tokens[: count + 1])) for count in range(len(tokens))]
    starts = [0, *lengths[:-1]]
    inside = [i for i, (start, end) in enumerate(zip(starts, lengths, strict=True)) if end > opened and start < closed]
    return slice(inside[0], inside[-1] + 1)
