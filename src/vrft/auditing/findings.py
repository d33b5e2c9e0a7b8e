"""The result of an audit: findings with their severity, and the figures behind them, as plain data."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

from vrft.boxes import Size

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""An error would spoil a run; a warning may; a note is a fact to know."""

FORMAT = 1
"""Raised when keys of ``Audit.to_json`` change their meaning."""

EXAMPLES = 20
"""The most places that a finding names."""


@dataclass(frozen=True)
class Vision:
    """How the processor of a policy sees images; it comes from a layer above, since it needs transformers."""

    frame: str | None = None
    """The frame of boxes of the policy; None where it is not known."""
    token: int = 28
    """Pixels a side of a visual token after the resize."""
    max_pixels: int | None = None
    """The most pixels of an image after the resize."""
    resize: Callable[[Size], Size] | None = None
    """Width and height of an image after the resize; None where tokens cannot be counted."""
    missing: str = ""
    """Why tokens cannot be counted."""


@dataclass(frozen=True)
class Finding:
    """A fault, or a fact to know."""

    code: str
    """A short name of the kind of finding, for programs."""
    severity: Severity
    message: str
    """What was found, what it means for a run, and how to mend it."""
    where: list[str] = field(default_factory=list)
    """Samples, labels or files, ``EXAMPLES`` at most."""
    count: int = 1
    """How many samples, labels or boxes are concerned."""
    data: str = "data"
    """The section of the recipe: ``data``, or ``stages.0.data``."""


@dataclass
class Audit:
    """The findings about a recipe, and the counts and figures behind them."""

    recipe: str
    """The name of the recipe."""
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By section of data and split: ``samples``, ``targets``, ``subgroups``, ``patients``, ``boxes``, where they
    apply."""
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By section of data: how many were opened, the distribution of their sides, and of their visual tokens."""
    rewards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By section of data and reward: the mean for right answers, for those of other samples (``shuffled``), and for
    the best answer that is the same for all samples (``constant``)."""
    seconds: float = 0.0
    limit: int | None = None
    """The samples of a split that were audited at most; None for all."""

    def of(self, severity: Severity) -> list[Finding]:
        """The findings of a severity, in order."""
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def passed(self) -> bool:
        """Whether there is no error."""
        return not self.of("error")

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data, the gravest findings first."""
        plain = asdict(self)
        plain["findings"] = [asdict(finding) for severity in SEVERITIES for finding in self.of(severity)]
        return {"format": FORMAT, "passed": self.passed, **plain}


def examples(names: Iterable[str]) -> list[str]:
    """The first names, as many as a finding holds."""
    return list(islice(names, EXAMPLES))


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "image"), plural(2000, "box"), plural(2, "copy")
    ('1 image', '2,000 boxes', '2 copies')
    """
    if count == 1:
        return f"1 {noun}"
    ending = "ies" if noun.endswith("y") else "es" if noun.endswith(("x", "s")) else "s"
    return f"{count:,} {noun.removesuffix('y') if ending == 'ies' else noun}{ending}"
