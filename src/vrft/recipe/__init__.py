"""The recipe: the one place that describes a run.

A recipe is YAML, read with the line of each key, checked against the models below (unknown keys are errors) and against
the data it names; all faults are reported together, before anything is loaded. The resolved recipe holds every value
that decides a result, and is itself a recipe.
"""

from vrft.recipe.arms import ARMS, Arm, Condition
from vrft.recipe.checking import check_recipe, check_stage, parse_recipe, read_recipe
from vrft.recipe.comparison import (
    FACTORS,
    Ablation,
    ArmChange,
    Budget,
    Evaluation,
    Sft,
    Sweep,
    Validate,
    name_of_arm,
)
from vrft.recipe.opening import (
    box_reader,
    build_task,
    known_classes,
    names_of_samples,
    open_knowledge,
    open_source,
    reading_of,
    skips_bad,
)
from vrft.recipe.schema import Recipe
from vrft.recipe.sections import (
    LOSSES,
    Data,
    FileData,
    FuzzyReward,
    IouReward,
    Lora,
    PhantomData,
    Policy,
    RecitationReward,
    Reward,
    Rewards,
    RftStage,
    SftStage,
    TaskSection,
    longest_answer,
    texts_of,
)

__all__ = [
    "ARMS",
    "FACTORS",
    "LOSSES",
    "Ablation",
    "Arm",
    "ArmChange",
    "Budget",
    "Condition",
    "Data",
    "Evaluation",
    "FileData",
    "FuzzyReward",
    "IouReward",
    "Lora",
    "PhantomData",
    "Policy",
    "Recipe",
    "RecitationReward",
    "Reward",
    "Rewards",
    "RftStage",
    "Sft",
    "SftStage",
    "Sweep",
    "TaskSection",
    "Validate",
    "box_reader",
    "build_task",
    "check_recipe",
    "check_stage",
    "known_classes",
    "longest_answer",
    "name_of_arm",
    "names_of_samples",
    "open_knowledge",
    "open_source",
    "parse_recipe",
    "read_recipe",
    "reading_of",
    "skips_bad",
    "texts_of",
]
