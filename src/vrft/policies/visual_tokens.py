"""The visual tokens of images at the processor of a policy, without its weights."""

from vrft.auditing import Vision
from vrft.errors import PolicyError
from vrft.policies.families import family_of, processed_size
from vrft.policies.from_recipe import processor_without_weights
from vrft.recipe import Policy


def vision_of(section: Policy) -> Vision:
    """How the policy of a recipe sees images, from files of this machine alone.

    Where the processor is not on this machine, ``Vision.missing`` says so.
    """
    try:
        config, processor = processor_without_weights(section)
    except PolicyError as error:
        return Vision(missing=str(error))
    family = family_of(config)
    if family.multiple == 1:
        return Vision(family.frame, missing=f"the resize of {section.model} is not known")
    most = processor.image_processor.size["longest_edge"]
    return Vision(family.frame, family.multiple, most, lambda size: processed_size(size, config, processor))
