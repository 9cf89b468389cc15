import numpy as np
import pytest

from pipelines.engines.base import Sampling

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def tiny_decoder(capacity):
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipelines.engines.decode import Decoder

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config).double().eval()
    return Decoder(model, capacity, [0], lambda row, tokens: False, 2**20)


def run(decoder, seed):
    """Rows of many lengths that come a few at a time; their answers by seed."""
    from pipelines.engines.decode import Row

    rng = np.random.default_rng(seed)
    waiting = [
        Row(tuple(rng.integers(1, 12, int(n)).tolist()), Sampling(), i, int(limit), i)
        for i, (n, limit) in enumerate(
            zip(rng.integers(1, 80, 70), rng.integers(1, 60, 70), strict=True)
        )
    ]
    answers = {}
    while waiting or decoder.live:
        room = decoder.capacity - decoder.live
        if waiting and room >= 5:
            decoder.admit([waiting.pop() for _ in range(min(room, len(waiting)))])
        answers |= {w.row.owner: (w.tokens, w.stopped) for w in decoder.step()}
    return answers


def test_buffers_are_laid_out_once():
    """Layouts grow and shrink all the time; memory must not be allocated anew for each."""

    def buffers():
        tensors = [t for layer in decoder.layers for t in (layer.keys, layer.values)]
        return {t.untyped_storage().data_ptr() for t in (*tensors, decoder.spare)}

    with torch.inference_mode():
        decoder = tiny_decoder(16)
        first = run(decoder, 0)
        assert len(first) == 70
        assert {stopped for _, stopped in first.values()} == {True, False}
        # The buffers take turns: each has grown to the largest layout when it had its turn at it.
        for _ in range(5):
            assert run(decoder, 0) == first
        before = buffers()
        assert len(before) == 5
        for _ in range(5):
            assert run(decoder, 0) == first
        assert buffers() == before


def test_the_memory_of_what_was_read_is_bounded():
    with torch.inference_mode():
        decoder = tiny_decoder(16)
        run(decoder, 1)
        pools = [*decoder.prefixes.keys, *decoder.prefixes.values]
        used = sum(pool[1:].nbytes for pool in pools)
        # 2 layers, keys and values, 1 head of 8, 8 bytes a number: 256 bytes a token.
        assert used == decoder.prefixes.tree.capacity * 256 == 2**20


def test_a_large_batch_is_drawn_from_in_pieces(monkeypatch):
    """What a row writes is the same, whatever the number of rows that are drawn at once."""
    from pipelines.engines import decode

    with torch.inference_mode():
        whole = run(tiny_decoder(16), 2)
        sizes = []
        draw = decode.draw

        def seen(logits, *settings, **options):
            sizes.append(len(logits))
            return draw(logits, *settings, **options)

        monkeypatch.setattr(decode, "draw", seen)
        monkeypatch.setattr(decode, "DRAWN", 5 * 12)
        assert run(tiny_decoder(16), 2) == whole
        assert max(sizes) == 5
        monkeypatch.setattr(decode, "DRAWN", 1)  # a row at least
        assert run(tiny_decoder(16), 2) == whole
