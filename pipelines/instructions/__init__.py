"""Verifiable instructions (IFEval): checked by code, strictly and loosely."""
