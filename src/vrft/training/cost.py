"""What training and evaluation cost on a device, from the configuration of a policy alone.

Time. A forward pass takes two operations a weight and token (Kaplan et al., arXiv 2001.08361, table 1), four an entry
of the attention matrices and channel, and the output matrix on the tokens that are scored; a backward pass takes twice
as many, and with checkpointed activations one forward more. A token of a rollout reads all weights and the cache once,
so it is bound by bandwidth where few sequences are decoded together.

Memory. Weights that are trained, their gradients, both moments of AdamW and the reference of a KL term are float32:
16 bytes a weight, 20 with the reference. Where bfloat16 is computed in, autocast keeps one more copy of the weights in
it for the backward pass. Under adapters the base has the type that is computed in, and is the reference too.

What autograd keeps of a layer is counted like Korthikanti et al. (arXiv 2205.05198, section 4.1), for
this block: with b bytes a number, h the width, q and k the widths of queries and of keys repeated to all heads, f that
of the MLP, and S the length of its row, a token has

    2 norms:    their input in float32, the normalised input, the output    2 h (4 + 2 b)
    attention:  queries and output                                          b 2 q
                keys and values                                             b 2 k
    MLP:        gate, its SiLU, up, their product                           4 b f
    mask:       one number for each token that it may look at               b S

A packed row of a group (``packing.py``) keeps the keys and values of the prompt once more for each completion.
No attention scores are kept: the kernels that torch chooses on a CPU and on a GPU recompute them. With checkpointing
only the input of each layer is kept (b h), and one layer at a time is whole. A test counts what autograd really keeps.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from vrft.errors import PolicyError
from vrft.training.devices import Device

TOKENS_TILE, WORDS_TILE = 4096, 32768
"""TRL scores completions in tiles of so many tokens and words of the vocabulary."""
CPU_TILES = 8
"""Tiles that the scoring holds at once where it has no kernel of its own: logits, and each step to their gradient."""
CPU_SLACK = 1.25
"""The C allocator of a CPU holds more than is used: freed blocks between used ones. Chosen with the shares of a CPU."""
MASTER = 4
"""Bytes of a weight that is trained, of its gradient, and of each moment."""
CAST_TRAFFIC = 8
"""Bytes that a token of a rollout moves for a float32 weight under autocast: read it, write and read its copy."""
SAMPLING = 2
"""What choosing the next token takes beside the layers, in launches of a layer."""
CACHE_TRAFFIC, IN_PLACE = 3, 1
"""transformers copies the cache of a layer to add a token (read, write), before attention reads it; rollouts of a
shared prefix write it in place."""
STEP_SECONDS, SEQUENCE_SECONDS = 0.015, 0.0013
"""Reading images, rewards and bookkeeping: of a step and of each of its sequences; measured with `vrft bench`, tiny."""


@dataclass(frozen=True)
class Architecture:
    """What the cost of a policy follows from; parameters and widths.

    Args:
        text: parameters of the decoder without embeddings.
        embedding: parameters of the embeddings.
        head: parameters of the output matrix that are its own; 0 where it is that of the embeddings.
        tower: parameters of the vision tower that see each patch.
        merger: parameters of the vision tower that see each image token.
        layers: of the decoder.
        hidden, query, key, mlp, words: widths of the decoder: of a token, of all queries, of all keys, of the MLP, and
            the size of the vocabulary.
        depth, wide, wide_mlp: layers of the vision tower, and widths of a patch and its MLP.
        whole: layers of the tower in which a patch attends to the whole image; in others to ``window`` patches.
        pixels: numbers that a patch is made of.
        adapters: parameters of LoRA; None where all weights are trained.
        tower_trained: whether the tower has gradients.
    """

    text: int
    embedding: int
    head: int
    tower: int
    merger: int
    layers: int
    hidden: int
    query: int
    key: int
    mlp: int
    words: int
    depth: int
    wide: int
    wide_mlp: int
    whole: int
    window: int
    pixels: int
    adapters: int | None = None
    tower_trained: bool = True

    @property
    def parameters(self) -> int:
        return self.text + self.embedding + self.head + self.tower + self.merger

    @property
    def trained(self) -> int:
        return self.parameters if self.adapters is None else self.adapters


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt with its image, of the image alone, and of a completion."""

    prompt: int
    image: int
    completion: int


@dataclass(frozen=True)
class Pass:
    """One pass: rows of tokens, the patches of each image (4 a token), and the tokens whose words are scored.

    Args:
        attended: pairs of tokens in a row that attention compares.
        keyed: keys that are kept of a row.
        masked: entries of the mask of a row.
    """

    rows: int
    length: int
    images: int
    patches: int
    scored: int
    attended: int
    keyed: int
    masked: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True)
class Step:
    """One optimiser step: groups of completions, in passes of ``micro`` sequences; of SFT a group is one sequence.

    ``updates`` steps share a batch of rollouts.
    """

    prompts: int
    group: int = 1
    micro: int | None = None
    shared: bool = False
    kl: bool = False
    checkpointing: bool = False
    rollouts: bool = False
    updates: int = 1


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment when each is largest."""

    weights: float
    gradients: float = 0.0
    optimiser: float = 0.0
    reference: float = 0.0
    activations: float = 0.0
    cache: float = 0.0
    update: float = 0.0
    """What AdamW needs beside, while it updates all weights at once."""

    @property
    def peak(self) -> float:
        """Activations, the cache and the update are never there together."""
        lasting = self.weights + self.gradients + self.optimiser + self.reference
        return lasting + max(self.activations, self.cache, self.update)


@dataclass(frozen=True)
class Cost:
    """Of one step, or of one evaluation: tokens sampled and passed through, seconds of each part, and bytes."""

    rollout_tokens: int
    training_tokens: int
    seconds: dict[str, float] = field(default_factory=dict)
    memory: Memory = field(default_factory=lambda: Memory(0))

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def empty_model(config: Any) -> Any:
    """A model of a configuration without weights."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


KNOWN = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (2048, 36, 16, 2, 11008, 151936, True),
    "Qwen/Qwen2.5-VL-7B-Instruct": (3584, 28, 28, 4, 18944, 152064, False),
}
"""Architectures whose plan needs no file: width, layers, heads of queries and of keys, width of the MLP, vocabulary,
and whether the output matrix is that of the embeddings; all have the same vision tower."""


def known_config(name: str) -> Any:
    """The configuration of a known model."""
    hidden, layers, heads, keys, mlp, words, tied = KNOWN[name]
    text = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": mlp,
        "vocab_size": words,
        "tie_word_embeddings": tied,
    }
    vision: dict[str, Any] = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
    }
    vision |= {"out_hidden_size": hidden, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    return AutoConfig.for_model("qwen2_5_vl", text_config=text, vision_config=vision, tie_word_embeddings=tied)


def architecture(model: Any, rank: int | None = None, targets: tuple[str, ...] = ()) -> Architecture:
    """Count a model, which may be empty; with the rank of adapters and the ends of the names of layers that get one.

    Raises:
        PolicyError: it is built in another way than those of the family.
    """
    try:
        text, vision = model.config.get_text_config(), model.config.vision_config
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        tower, decoder = model.model.visual, model.model.language_model
        heads, width = text.num_attention_heads, getattr(text, "head_dim", None)
        width = width or text.hidden_size // heads
        wide = getattr(vision, "embed_dim", None) or vision.hidden_size
        whole = getattr(vision, "fullatt_block_indexes", None)
        merger = _count(tower.merger)
        layers = [
            (name, one)
            for name, one in model.named_modules()
            if isinstance(one, nn.Linear) and any(f".{name}".endswith(f".{end}") for end in targets)
        ]
        return Architecture(
            text=_count(decoder) - embedding.numel(),
            embedding=embedding.numel(),
            head=0 if head is embedding else head.numel(),
            tower=_count(tower) - merger,
            merger=merger,
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            query=heads * width,
            key=text.num_key_value_heads * width,
            mlp=text.intermediate_size,
            words=text.vocab_size,
            depth=vision.depth,
            wide=wide,
            wide_mlp=getattr(vision, "intermediate_size", None) or int(wide * vision.mlp_ratio),
            whole=vision.depth if whole is None else len(whole),
            window=(getattr(vision, "window_size", 0) // vision.patch_size) ** 2,
            pixels=vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
            adapters=None if rank is None else sum(rank * (one.in_features + one.out_features) for _, one in layers),
            tower_trained=rank is None or any("visual" in name for name, _ in layers),
        )
    except AttributeError as error:
        kind = model.config.model_type
        raise PolicyError(f"the plan counts models that are built like Qwen-VL; {kind} is not ({error}).") from None


def _count(module: nn.Module) -> int:
    return sum(one.numel() for one in module.parameters())


def make_pass(prompts: int, group: int, lengths: Lengths, *, shared: bool, score_all: bool) -> Pass:
    """The pass over some groups, with the prompt of each once or before every completion.

    >>> make_pass(1, 8, Lengths(300, 64, 150), shared=True, score_all=False).tokens
    1500
    >>> make_pass(1, 8, Lengths(300, 64, 150), shared=False, score_all=False).tokens
    3600
    """
    rows = prompts if shared else prompts * group
    length = lengths.prompt + lengths.completion * (group if shared else 1)
    scored = rows * length if score_all else prompts * group * lengths.completion
    attended, keyed, masked = length**2, length, length**2
    if shared and lengths.completion:
        one = lengths.prompt + lengths.completion
        masked, keyed = group * lengths.completion * one, lengths.prompt + group * one
        attended = lengths.prompt**2 + masked
    return Pass(rows, length, rows, 4 * lengths.image, scored, attended, keyed, masked)


def forward_flops(one: Architecture, over: Pass) -> tuple[float, float]:
    """Operations of a forward pass: of the decoder with its scores, and of the vision tower."""
    decoder = 2 * one.text * over.tokens + 4 * one.layers * one.query * over.rows * over.attended
    decoder += 2 * one.words * one.hidden * over.scored
    patches, near = over.images * over.patches, min(one.window or over.patches, over.patches)
    attended = one.whole * over.patches + (one.depth - one.whole) * near
    tower = 2 * one.tower * patches + 2 * one.merger * patches / 4 + 4 * one.wide * attended * patches
    return decoder, tower


def activation_bytes(one: Architecture, over: Pass, width: int, *, checkpointing: bool) -> float:
    """What autograd keeps of a pass, without the scores.

    Adapters are counted as if all weights were trained: of the embedded policy that is 1.30 times what autograd keeps
    in float32, and 0.92 times in bfloat16, where PEFT copies the inputs of adapters in float32.
    """
    of_token = 2 * one.hidden * (4 + 2 * width) + width * (2 * one.query + 4 * one.mlp)
    of_layer = over.tokens * of_token + over.rows * width * (2 * one.query * over.keyed + over.masked)
    of_tower_layer = 2 * one.wide * (4 + 2 * width) + width * (7 * one.wide + 4 * one.wide_mlp)
    of_merger = one.wide * (4 + 5 * width) + width * one.pixels
    patches = over.images * over.patches if one.tower_trained else 0
    if not checkpointing:
        return one.layers * of_layer + patches * (one.depth * of_tower_layer + of_merger)
    inputs = width * (over.tokens * one.layers * one.hidden + patches * one.depth * one.wide)
    return inputs + max(of_layer, patches * of_tower_layer)


def scoring_bytes(one: Architecture, scored: int, width: int, *, on_cpu: bool) -> float:
    """What TRL holds to score completions backwards: tiles of logits, and float32 gradients of states and matrix."""
    tokens = min(scored, TOKENS_TILE)
    tiles = CPU_TILES * tokens * min(one.words, WORDS_TILE) * 4 if on_cpu else tokens * WORDS_TILE * width
    matrix = one.words * one.hidden * 4 if one.adapters is None else 0
    return tiles + matrix + scored * one.hidden * 4


def cache_bytes(one: Architecture, sequences: int, length: float, width: int) -> float:
    """Keys and values of sequences; in a rollout each completion has its own, shared prefix or not."""
    return sequences * length * 2 * one.key * one.layers * width


def pass_seconds(one: Architecture, device: Device, flops: float, width: int) -> float:
    launching = (one.layers + one.depth) * device.launch
    return device.together(launching, flops / (device.peak(width) * device.training))


def decode_seconds(
    one: Architecture,
    device: Device,
    sequences: int,
    lengths: Lengths,
    width: int,
    traffic: int = CACHE_TRAFFIC,
    weight_bytes: int | None = None,
) -> float:
    """Of all tokens of completions that are sampled together, after the prompt.

    ``weight_bytes`` is what is moved for each weight and token, where it is not its width.
    """
    cached = cache_bytes(one, sequences, lengths.prompt + lengths.completion / 2, width)
    weights = (weight_bytes or width) * (one.text + one.words * one.hidden)
    reading = (weights + traffic * cached) / (device.bandwidth * device.decoding)
    computing = 2 * sequences * (one.text + one.words * one.hidden) / (device.peak(width) * device.training)
    return lengths.completion * device.together((one.layers + SAMPLING) * device.launch, max(reading, computing))


def weight_memory(one: Architecture, width: int) -> float:
    """Bytes of weights in training: all in float32 and a copy to compute with, or a base and adapters in float32."""
    if one.adapters is not None:
        return one.parameters * width + one.adapters * MASTER
    return one.parameters * (MASTER + (width if width < MASTER else 0))


def step_cost(one: Architecture, device: Device, step: Step, lengths: Lengths, width: int, devices: int = 1) -> Cost:
    """One optimiser step of training.

    Args:
        one: the policy.
        device: each of ``devices``, which share the groups of a step out; weights and moments stand whole on each.
        step: what it does.
        lengths: of its sequences.
        width: bytes of a number that is computed with.
    """
    on_cpu = device.name == "cpu"
    mixed = one.adapters is None and width < MASTER
    prompts = -(-step.prompts // devices)
    sequences = prompts * step.group
    micro = min(step.micro or sequences, sequences)

    def of(count: int) -> Pass:
        groups, size = (count // step.group, step.group) if step.shared else (count, 1)
        return make_pass(groups, size, lengths, shared=step.shared, score_all=on_cpu)

    whole, held = of(sequences), of(micro)
    passes = -(-sequences // micro)
    decoder, tower = forward_flops(one, whole)
    forward = pass_seconds(one, device, (decoder + tower) / passes, width) * passes
    back = (2 if one.adapters is None else 1) * decoder + (2 * tower if one.tower_trained else 0)
    back += (decoder + tower) if step.checkpointing else 0
    seconds = {"forward": forward, "backward": pass_seconds(one, device, back / passes, width) * passes}
    if step.kl:
        seconds["reference"] = forward
    cache = 0.0
    if step.rollouts:
        asked = make_pass(
            prompts if step.shared else sequences, 1, replace(lengths, completion=0), shared=True, score_all=False
        )
        seconds["rollout"] = pass_seconds(one, device, sum(forward_flops(one, asked)), width)
        traffic = IN_PLACE if step.shared else CACHE_TRAFFIC
        moved = CAST_TRAFFIC if mixed else width
        seconds["rollout"] += decode_seconds(one, device, sequences, lengths, width, traffic, moved)
        cache = cache_bytes(one, sequences, lengths.prompt + lengths.completion, width)
    if step.updates > 1:  # rollouts and the reference's pass are shared, and the probabilities of the start are kept
        seconds["reference"] = (seconds.get("reference", 0.0) + forward) / step.updates
        seconds["rollout"] /= step.updates
    # AdamW reads weight, gradient and both moments, and writes all but the gradient.
    update = one.trained * MASTER
    seconds["update"] = 7 * update / device.bandwidth
    seconds["other"] = STEP_SECONDS + SEQUENCE_SECONDS * sequences
    kept = activation_bytes(one, held, width, checkpointing=step.checkpointing)
    kept += scoring_bytes(one, held.scored, width, on_cpu=on_cpu)
    memory = Memory(
        weights=weight_memory(one, width),
        gradients=update,
        optimiser=2 * update,
        reference=one.parameters * MASTER if step.kl and one.adapters is None else 0,
        activations=kept * (CPU_SLACK if on_cpu else 1),
        cache=cache,
        update=0 if on_cpu else update,
    )
    sampled = step.prompts * step.group * lengths.completion // step.updates if step.rollouts else 0
    passed = of(step.prompts * step.group).tokens
    return Cost(sampled, passed, seconds, memory)


def evaluation_cost(one: Architecture, device: Device, samples: int, batch: int, lengths: Lengths, width: int) -> Cost:
    """Greedy decoding of ``samples``, ``batch`` at a time; every batch is as long as its longest completion may be."""
    together = min(batch, samples)
    batches = -(-samples // together)
    asked = make_pass(samples, 1, replace(lengths, completion=0), shared=True, score_all=False)
    reading = pass_seconds(one, device, sum(forward_flops(one, asked)) / batches, width)
    decoding = decode_seconds(one, device, together, lengths, width)
    seconds = {"rollout": batches * (reading + decoding), "other": SEQUENCE_SECONDS * samples}
    cache = cache_bytes(one, together, lengths.prompt + lengths.completion, width)
    memory = Memory(weights=one.parameters * width, cache=cache)
    return Cost(samples * lengths.completion, asked.tokens, seconds, memory)
