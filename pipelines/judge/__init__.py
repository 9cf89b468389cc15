"""Judges: whatever has an opinion on a response or a pair gives `Vote`s.

`derived`: from what the run knows already. The others ask a model, and share the contract of
`cases.judge`: `llm` (pairwise, pointwise, listwise), `likelihood`, `reward_model`, `code`.
"""
