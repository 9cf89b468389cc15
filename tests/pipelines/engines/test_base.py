"""What a request's key covers: replies of earlier runs are found by it."""

from __future__ import annotations

from dataclasses import replace

from pipelines.engines.base import Request, Sampling, request_key, request_seed
from schemas.records import Message

ASK = Request((Message(role="user", content="2+2?"),), Sampling(seed=3), 5, "2+2=")


def test_a_request_without_prefix_tokens_keeps_the_key_it_always_had() -> None:
    assert request_key("identity", ASK).hex() == "33a341b28ed768535b88dc80f7408d9c"
    assert request_seed("identity", ASK) == 820661635631100898


def test_a_prefix_token_for_token_is_another_request_than_its_text() -> None:
    one, two = replace(ASK, prefix_ids=(7, 8)), replace(ASK, prefix_ids=(7, 9))
    assert len({request_key("identity", r) for r in (ASK, one, two)}) == 3
    assert request_key("identity", one) == request_key("identity", replace(one, sample=6))
