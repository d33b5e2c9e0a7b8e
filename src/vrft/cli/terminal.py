"""Output on a terminal: the plan, bars, and the table of results."""

import sys
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from vrft.knowledge import Card
from vrft.progress import Reporter
from vrft.recipe import Recipe, RftStage
from vrft.rewards.scoring import Summary


class BarReporter(Reporter):
    """Bars with the time left and the reward so far."""

    def __init__(self) -> None:
        super().__init__()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
        self._bar: TaskID | None = None

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False)

    def start(self, label: str, total: int, done: int = 0) -> None:
        """Show a bar of ``total`` steps, of which ``done`` are done."""
        self._progress.start()
        self._bar = self._progress.add_task(label, total=total, completed=done, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar to ``done`` steps."""
        if self._bar is not None:
            self._progress.update(self._bar, completed=done, note=note)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()
        if self._bar is not None:
            self._progress.remove_task(self._bar)
            self._bar = None


def make_reporter(*, quiet: bool) -> Reporter:
    """Bars on a terminal, plain lines elsewhere, nothing when quiet."""
    return BarReporter() if sys.stderr.isatty() and not quiet else Reporter(quiet=quiet)


def plan(recipe: Recipe, out: Path) -> str:
    """The arms of a run and their stages, before it begins."""
    data = f"{recipe.data.source} {getattr(recipe.data, 'dataset', '') or getattr(recipe.data, 'root', '')}".strip()
    lines = [
        f"run {recipe.name}: {recipe.task.kind} on {data} with policy {recipe.policy.model}, into {out}",
        f"  evaluated on {recipe.evaluation.split}, seeds {', '.join(map(str, recipe.seeds))}",
    ]
    if recipe.custom:
        functions = ", ".join(f"{where} as {name}" for name, where in recipe.custom.items())
        lines.append(f"  runs code of yours: {functions}")
    for name in recipe.arm_names():
        stages = []
        for stage in recipe.stages_of(name):
            if isinstance(stage, RftStage):
                rewards = " + ".join(f"{weight:g} {reward}" for reward, weight in stage.weights().items())
                words = f"rft, {stage.steps} steps of {stage.prompts_per_step} x {stage.group_size}, reward {rewards}"
            else:
                words = f"sft, {stage.steps} steps of {stage.batch_size}"
            words += f", on {stage.task.kind}" if stage.task else ""
            stages.append(words + (", targets shuffled" if stage.shuffle_targets else ""))
        lines.append(f"  arm {name}: {'; then '.join(stages) or 'no training'}")
    return "\n".join(lines)


def results(metrics: dict[str, Any]) -> str:
    """The arms with their main metrics, and the differences on the headline metric; the report has them all."""
    from vrft.report.tables import arm_table, metrics_of, planned_table

    names = [name for name in metrics_of(metrics) if name != "read_rate" and not name.endswith("_lenient")]
    arms = arm_table(metrics, [*names[: 1 if metrics["factors"] else 3], "read_rate"]).drop(
        columns=["steps", "M tokens", "peak GB"]
    )
    text = StringIO()
    console = Console(file=text, width=160)
    for frame in (arms, planned_table(metrics)):
        table = Table(*frame.columns)
        for row in frame.itertuples(index=False):
            table.add_row(*map(escape, row))
        if len(frame):
            console.print(table)
    return text.getvalue().rstrip()


def summary(figures: Summary) -> str:
    """The summary of ``vrft score``: one row a reward, then how much was read, and the problems."""
    table = Table("reward", "lines", "mean", "full")
    for name, (lines, total, full) in figures.rewards.items():
        table.add_row(name, f"{lines:,.0f}", f"{total / lines:.3f}", f"{full / lines:.1%}")
    text = StringIO()
    console = Console(file=text, width=100)
    console.print(table)
    console.print(f"answers read: {figures.read:,} of {figures.lines:,}", highlight=False)
    for code, count in figures.problems.most_common():
        console.print(f"  {code}: {count:,}", highlight=False)
    return text.getvalue().rstrip()


def card_text(card: Card) -> str:
    """A card for a reader: each class with its sources, then the works behind them and what is one-sided."""
    lines = [card.title, card.modality, ""]
    for label, one in card.classes.items():
        also = f" (also {', '.join(one.synonyms)})" if one.synonyms else ""
        lines.append(f"{label}{also}")
        lines += [f"  {attribute}: {text}" for attribute, text in one.description.items()]
    lines += ["", *(f"[{name}] {work}" for name, work in card.sources.items()), ""]
    lines += [f"bias: {bias}" for bias in card.biases]
    checked = (
        f"checked by {card.checked_by.by}, {card.checked_by.date}" if card.checked_by else "not checked by a person"
    )
    lines.append(f"written by {card.written_by.name} ({card.written_by.kind}), {card.date}; {checked}; {card.licence}")
    return "\n".join(lines)


def audit_tables(audit: dict[str, Any], *, on_terminal: bool) -> str:
    """The plain data of an audit: counts, figures and findings, as tables on a terminal and as lines elsewhere."""
    text = StringIO()
    console = Console(file=text, width=120 if on_terminal else 10_000, force_terminal=on_terminal)
    for name, splits in audit["counts"].items():
        _table(console, f"{name}: counts", _count_rows(splits), on_terminal=on_terminal)
        for line in [*_image_lines(audit["images"][name]), *_reward_lines(audit["rewards"][name])]:
            console.print(line, highlight=False, markup=False)
    for finding in audit["findings"]:
        place = "" if finding["data"] == "data" else f" ({finding['data']})"
        style = {"error": "bold red", "warning": "yellow"}.get(finding["severity"], "dim")
        console.print(f"[{style}]{finding['severity']}[/] {escape(finding['code'] + place)}: ", end="", highlight=False)
        console.print(finding["message"], highlight=False, markup=False)
        shown = finding["where"][: 2 if finding["severity"] == "note" else 5]
        for place in shown:
            console.print(f"    {place}", highlight=False, markup=False)
        if len(finding["where"]) > len(shown):
            console.print("    more in --json", highlight=False, markup=False)
    counted = [f"{sum(f['severity'] == s for f in audit['findings'])} {s}s" for s in ("error", "warning", "note")]
    console.print(f"{', '.join(counted)}; {audit['seconds']:.1f} s", highlight=False)
    return text.getvalue().rstrip()


def _table(console: Console, title: str, rows: list[list[str]], *, on_terminal: bool) -> None:
    """A table with its titles in the first row, or a line for each row."""
    if on_terminal:
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*map(escape, row))
        console.print(table)
        return
    for row in rows[1:]:
        cells = ", ".join(f"{name} {cell}" for name, cell in zip(rows[0], row, strict=True) if cell)
        console.print(f"{title}: {cells}", highlight=False, markup=False)


def _count_rows(splits: dict[str, Any]) -> list[list[str]]:
    """The counts of each split, with the columns that any split has, and its targets and subgroups in words."""
    columns = list(dict.fromkeys(key for counts in splits.values() for key in counts))
    rows = [["split", *columns]]
    for split, counts in splits.items():
        cells = []
        for column in columns:
            value = counts.get(column, 0)
            if isinstance(value, dict):
                few = list(value.items())[:12]
                cells.append("; ".join(f"{key}: {n:,}" for key, n in few) + (" ..." if len(value) > 12 else ""))
            else:
                cells.append(f"{value:,}" if value else "0" if column == "samples" else "")
        rows.append([split, *cells])
    return rows


def _image_lines(figures: dict[str, Any]) -> list[str]:
    lines = [
        f"images: {figures['opened']:,} ({figures['measured_now']:,} opened now), {figures['unreadable']:,} unreadable"
    ]
    for key, noun in (("width", "width"), ("height", "height"), ("tokens", "visual tokens an image")):
        if spread := figures.get(key):
            lines.append(f"{noun}: {spread['min']:,} to {spread['max']:,}, median {spread['median']:,}")
    if missing := figures.get("tokens_missing"):
        lines.append(f"visual tokens are not counted: {missing}")
    return lines


def _reward_lines(figures: dict[str, Any]) -> list[str]:
    return [
        f"reward {name}: right answers earn {of['right']:.3f}, those of other samples {of['shuffled']:.3f}, "
        f"{of['answer']!r} for every sample {of['constant']:.3f}"
        for name, of in figures.items()
    ]
