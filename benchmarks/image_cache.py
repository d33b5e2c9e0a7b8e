"""The time to open and process an image: without the cache, when it is added to the cache, and from the cache.

python benchmarks/image_cache.py [--json]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vrft.policies import load_policy
from vrft.policies.image_cache import ImageCache
from vrft.sample import Sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=(1500, 1200), help="width and height of the files")
    parser.add_argument("--max-pixels", type=int, default=448 * 448, help="of the processor")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    policy = load_policy("tiny", max_pixels=options.max_pixels)
    rng = np.random.default_rng(0)
    width, height = options.size
    with tempfile.TemporaryDirectory() as folder:
        samples = []
        for index in range(options.images):
            coarse = Image.fromarray(rng.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8))
            path = Path(folder) / f"{index}.jpg"
            coarse.resize((width, height)).save(path, quality=92)
            samples.append(Sample(str(index), path, "", 0, "train"))
        policy.processor.image_processor(policy.open(samples[0])[0], return_tensors="pt")  # warm-up
        seconds = {}
        for name in ("without", "first", "again"):
            policy.cache = None if name == "without" else ImageCache(Path(folder) / "cache", 10**10)
            began = time.perf_counter()
            for sample in samples:
                images, _ = policy.open(sample)
                policy.processor.image_processor(images, return_tensors="pt")
            seconds[name] = (time.perf_counter() - began) / len(samples)
    result = {"size": [width, height], "max_pixels": options.max_pixels, "seconds_per_image": seconds}
    result["ratio"] = seconds["without"] / seconds["again"]
    if options.json:
        print(json.dumps(result))
        return
    for name, value in seconds.items():
        print(f"{name:8}{1000 * value:8.1f} ms an image")
    print(f"from the cache, an image takes {result['ratio']:.1f} times less")


if __name__ == "__main__":
    main()
