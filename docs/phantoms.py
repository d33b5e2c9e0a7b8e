"""Draw a contact sheet of each modality of the phantoms: ``python docs/phantoms.py`` writes docs/pictures.

Every combination of the attributes, then images of 0, 2, 4 and 5 findings.
"""

from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from vrft.data.phantom import ATTRIBUTES, FAMILIES, PIXELS, compose, draw

HERE = Path(__file__).parent / "pictures"


def sheet(modality: str, family: str) -> Image.Image:
    """All combinations of attributes, then images of 0 to 5 findings, four in a row."""
    rng = np.random.default_rng(7)
    images = []
    combinations = [dict(zip(ATTRIBUTES, values, strict=True)) for values in product(*ATTRIBUTES.values())]
    for attributes, count in [*((one, 1) for one in combinations), *(({}, count) for count in (0, 2, 4, 5))]:
        phantom = compose(rng, family=family, count=count, attributes=attributes)
        while phantom.modality != modality:
            phantom = compose(rng, family=family, count=count, attributes=attributes)
        images.append(draw(phantom))
    gap, columns = 4, 4
    rows = len(images) // columns
    page = Image.new("RGB", (columns * (PIXELS + gap) + gap, rows * (PIXELS + gap) + gap), "white")
    for index, image in enumerate(images):
        page.paste(image, (gap + index % columns * (PIXELS + gap), gap + index // columns * (PIXELS + gap)))
    return page


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for family, modalities in FAMILIES.items():
        for modality in modalities:
            sheet(modality, family).save(HERE / f"phantom_{modality}.png", optimize=True)
