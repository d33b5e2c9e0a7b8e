"""From an image file to the image that a policy sees: RGB, 8 bits a channel, upright.

How each kind of file is converted:

- 8-bit grey and colour stay as they are. ICC profiles are ignored.
- More than 8 bits and floats are scaled to 0 .. 255 by a declared window, else by ``grey_range``: one range for all
  channels of an image. A TIFF in which 0 is white is inverted, of whatever depth.
- 1 bit is 0 and 255. A palette gives its colours.
- Transparency is dropped, since exports hold true pixels below it. Where these have one colour, the drawing is in the
  transparency, which is laid over a background: white behind dark colours, black behind light colours.
- CMYK, YCbCr, LAB and HSV are converted by Pillow, also the inverted CMYK of Adobe's JPEGs.
- The EXIF orientation is applied, and every size is that of the upright image. In a PNG only an orientation before the
  pixels counts.
- A file with several pages is refused unless its page is named. In a JPEG with several images (MPO) the first is the
  photograph, and is read.
- A file that is damaged or cut off is refused: half an image is never shown.
- An image of more than 179 million pixels is refused. Pillow's warning about half as many is silenced, since a whole
  slide or a mammogram may be that large.
- DICOM files and series, and NIfTI volumes: see the modules ``dicom``, ``series`` and ``nifti``.
"""

from vrft.images.facts import RULES, Axis, ImageFacts, Region, read_part
from vrft.images.greys import BLANK, NOT_FINITE, Window, grey_range, image_warnings, is_blank, scale
from vrft.images.pillow import DEEP, SWAPPING, TURNS, load_upright, opened, orientation_of, upright_box
from vrft.images.reading import burned_in, inspect, inspect_bytes, is_medical, read_image, read_image_bytes

__all__ = [
    "BLANK",
    "DEEP",
    "NOT_FINITE",
    "RULES",
    "SWAPPING",
    "TURNS",
    "Axis",
    "ImageFacts",
    "Region",
    "Window",
    "burned_in",
    "grey_range",
    "image_warnings",
    "inspect",
    "inspect_bytes",
    "is_blank",
    "is_medical",
    "load_upright",
    "opened",
    "orientation_of",
    "read_image",
    "read_image_bytes",
    "read_part",
    "scale",
    "upright_box",
]
