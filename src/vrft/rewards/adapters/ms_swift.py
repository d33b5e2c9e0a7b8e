"""ms-swift: ``--external_plugins PATH_OF_THIS_FILE --reward_funcs vrft_accuracy vrft_format``.

The columns of the dataset are those of the rewards: ``target`` (or ms-swift's own ``solution``), and ``labels``,
``levels``, ``frame`` with ``image_size``, or ``answers``; where the chat template opens ``<think>``, ``prompt_end``.
"""

from collections.abc import Sequence
from typing import Any

from vrft.rewards import REWARDS

try:  # the module moved between major versions
    from swift.rewards import ORM, orms
except ImportError:
    try:
        from swift.plugin import ORM, orms
    except ImportError:
        ORM, orms = object, {}


class _Reward(ORM):
    """A reward in the form of ms-swift, created without arguments and called with completions and columns."""

    name: str

    def __init__(self, args: Any = None, **kwargs: Any) -> None:
        self.args = args

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        columns.setdefault("target", columns.get("solution"))
        return REWARDS[self.name](completions, **columns)


PLUGINS: dict[str, type[_Reward]] = {
    f"vrft_{name}": type(f"{name.title()}Reward", (_Reward,), {"name": name}) for name in REWARDS
}
"""The plug-ins by their names in ``--reward_funcs``."""

orms.update(PLUGINS)
