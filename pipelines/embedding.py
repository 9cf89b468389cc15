"""Texts as vectors: a sentence-embedding model, for whatever compares texts by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipelines.config import Config
from pipelines.engines.folder import folder_digest, model_folder
from schemas.errors import EngineError, MissingExtra
from schemas.record import digest

FORMAT = 1
"""Version of how a text becomes a vector: part of every embedder's identity."""


class EmbedConfig(Config):
    """Which model embeds texts."""

    model: str
    """Folder of a sentence-transformers model, or its Hub id (`org/name`)."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Texts a batch; none: 8 on a CPU, where padding costs more than a batch saves, else 64."""
    device: str | None = None
    """Device, such as `cpu` or `cuda:0`; none: the best one there is."""


class Embedder:
    """Embeds texts; the model is loaded by the first call.

    Raises EngineError where there is no such model or it cannot be read, MissingExtra where
    sentence-transformers is not installed.
    """

    def __init__(self, config: EmbedConfig) -> None:
        self.config = config
        self._folder = model_folder(config.model)

    @cached_property
    def identity(self) -> str:
        """32 hex digits over the model's files; batch size and device are no part of it."""
        return digest("embedder", FORMAT, folder_digest(self._folder))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 [texts, dimensions], in the texts' order.

        A text is cut where the model's window ends. Equal texts are embedded once and get equal
        vectors, and a vector follows from the set of texts, not from their order.
        """
        # What shares a batch is padded together: sorted, that depends on the texts alone.
        unique = sorted(set(texts), key=lambda text: (len(text), text))
        row = {text: index for index, text in enumerate(unique)}
        if not unique:
            return np.zeros((0, self._model.get_embedding_dimension()), np.float32)
        # The model takes batches of like length itself, and gives the rows back in order.
        vectors = self._model.encode(
            unique,
            batch_size=self.config.batch or (8 if self._model.device.type == "cpu" else 64),
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.asarray(vectors, np.float32)[[row[text] for text in texts]]

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra("sentence_transformers", "embed") from error
        try:
            return SentenceTransformer(
                str(self._folder), device=self.config.device, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EngineError(
                f"embedding model {self.config.model} cannot be loaded: {line}"
            ) from error
