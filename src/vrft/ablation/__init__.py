"""The ablation: every combination of the augmentations beside control arms, by seeds, in one command."""

from vrft.ablation.design import Design, design_of, only, read_design
from vrft.ablation.run import ablate, jobs_of
from vrft.ablation.summary import summarise_ablation, summary_of

__all__ = ["Design", "ablate", "design_of", "jobs_of", "only", "read_design", "summarise_ablation", "summary_of"]
