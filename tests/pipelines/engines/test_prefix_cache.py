import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

KINDS = {
    "sdpa": {"attn_implementation": "sdpa"},
    "eager": {"attn_implementation": "eager"},
    "sliding": {"attn_implementation": "sdpa", "sliding_window": 6},
}


def tiny_model(kind):
    from transformers import MistralConfig, MistralForCausalLM

    from pipelines.engines.local_model import _exact_norms

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=12,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        **{"sliding_window": None, **KINDS[kind]},
    )
    model = MistralForCausalLM(config).double().eval()
    _exact_norms(model)
    return model


def branching_prompts(rng, count):
    """Prompts many of which begin alike, some the start of another, one empty."""
    prompts = [()]
    while len(prompts) < count:
        start = prompts[int(rng.integers(len(prompts)))]
        start = start[: int(rng.integers(len(start) + 1))]
        more = tuple(rng.integers(0, 12, int(rng.integers(1, 9))).tolist())
        prompts.append((start + more)[:40])
    return sorted(set(prompts), key=lambda p: rng.random())


def distinct_starts(prompts):
    return len({p[: n + 1] for p in prompts for n in range(len(p))})


class Watched:
    """A model that counts the real tokens it reads and the passes it makes."""

    def __init__(self, model):
        self.model, self.device, self.passes = model, model.device, 0
        self.read = 0

    def __call__(self, **inputs):
        layers = inputs["past_key_values"].layers
        self.passes += 1
        self.read += len(layers[0].new) if layers else 0
        return self.model(**inputs)


def places_hold_what_a_plain_forward_gives(cache, model, prompts):
    from transformers import DynamicCache

    seen = []
    for some in cache.read(prompts):
        for prompt, places in some.items():
            seen.append(prompt)
            assert len(places) == len(prompt)
            if not prompt:
                continue
            plain = DynamicCache()
            model(input_ids=torch.tensor([prompt]), past_key_values=plain, use_cache=True)
            for layer, keys, values in zip(plain.layers, cache.keys, cache.values, strict=True):
                # A sliding layer of transformers keeps the last few tokens only.
                kept = layer.keys.shape[2]
                for whole, pool in ((layer.keys, keys), (layer.values, values)):
                    found = pool[places[-kept:]].transpose(0, 1)
                    assert torch.allclose(found, whole[0], rtol=0, atol=1e-6)
                    if model.config._attn_implementation == "sdpa":  # eager rounds to float32
                        assert torch.allclose(found, whole[0], rtol=0, atol=1e-12)
    assert sorted(seen) == sorted(prompts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capacity", [1, 25, 90, 2000])
def test_what_is_kept_is_what_a_plain_forward_gives(kind, capacity):
    """Cold, warm, with evictions, and with room for less than one prompt."""
    from pipelines.engines.prefix_cache import PrefixCache

    model = tiny_model(kind)
    size = 3 * 2 * 2 * 8 * 8  # layers, keys and values, heads, size of a head, bytes
    rng = np.random.default_rng(capacity)
    with torch.inference_mode():
        cache = PrefixCache(model, capacity * size)
        assert cache.tree.capacity == capacity
        first = branching_prompts(rng, 30)
        for prompts in (first, first, branching_prompts(rng, 20), first[:7]):
            places_hold_what_a_plain_forward_gives(cache, model, prompts)
        longest = max(map(len, first))
        assert longest <= cache.tree.capacity <= max(capacity, 40)


def test_every_token_is_read_once():
    from pipelines.engines.prefix_cache import PrefixCache

    model = Watched(tiny_model("sdpa"))
    rng = np.random.default_rng(5)
    first, second = branching_prompts(rng, 40), branching_prompts(rng, 40)
    with torch.inference_mode():
        cache = PrefixCache(model, 2**22)
        list(cache.read(first))
        assert model.read == distinct_starts(first)
        passes = model.passes
        list(cache.read(first[::-1]))
        assert (model.read, model.passes) == (distinct_starts(first), passes)
        list(cache.read(second))
        assert model.read == distinct_starts([*first, *second])


def test_a_pass_is_bounded(monkeypatch):
    from pipelines.engines import prefix_cache

    shapes = []
    model = Watched(tiny_model("sdpa"))
    plain = model.model.forward

    def forward(*args, **kwargs):
        shapes.append((*kwargs["input_ids"].shape, kwargs["past_key_values"].get_seq_length()))
        return plain(*args, **kwargs)

    model.model.forward = forward
    monkeypatch.setattr(prefix_cache, "PREFILL", 60)
    monkeypatch.setattr(prefix_cache, "SEEN", 100)
    rng = np.random.default_rng(6)
    prompts = [tuple(rng.integers(0, 12, 20).tolist()) for _ in range(30)]
    with torch.inference_mode():
        cache = prefix_cache.PrefixCache(model, 2**22)
        shapes.clear()
        list(cache.read([p[:12] for p in prompts]))
        list(cache.read(prompts))
    assert len(shapes) > 10
    for rows, length, before in shapes:
        assert rows * length <= 60
        assert rows * (length + before) <= 100


def test_the_tree_gives_up_what_was_used_longest_ago():
    from pipelines.engines.prefix_cache import TokenTree

    tree = TokenTree(6)

    def use(*tokens):
        path = tree.find(tokens)
        tree.touch(tokens, path)
        tree.extend(tokens, path)
        return path

    assert use(1, 2, 3) == [1, 2, 3]
    assert use(1, 2, 4) == [1, 2, 4]
    assert use(5, 6) == [5, 6]
    assert use(1, 2, 3) == [1, 2, 3]
    # 4 is the leaf used longest ago, then 6 before 5 although both were used at once.
    assert use(1, 7) == [1, 4]
    assert tree.find((1, 2, 4)) == [1, 2]
    assert use(1, 8) == [1, 6]
    assert tree.find((5, 6)) == [5]
    assert tree.find((1, 2, 3)) == [1, 2, 3]


@pytest.mark.parametrize("capacity", [9, 20, 60])
def test_a_place_never_stands_for_other_tokens(capacity):
    from pipelines.engines.prefix_cache import TokenTree

    tree, holds = TokenTree(capacity), {}
    rng = np.random.default_rng(capacity)
    for _ in range(3000):
        tokens = tuple(rng.integers(0, 3, int(rng.integers(1, 10))).tolist())
        path = tree.find(tokens)
        assert [holds[place] for place in path] == [tokens[: n + 1] for n in range(len(path))]
        tree.touch(tokens, path)
        tree.extend(tokens, path)
        assert len(set(path)) == len(path) == len(tokens)
        assert set(path) <= set(range(1, capacity + 1))
        holds.update((place, tokens[: n + 1]) for n, place in enumerate(path))
