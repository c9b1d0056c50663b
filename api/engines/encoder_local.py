"""Embeddings and classes from a model in this process: encoders, and any model with such a head.

Knows neither HTTP nor personal data.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from api.engines.base import (
    Classes,
    GenerationRequest,
    GenerationResult,
    Item,
    Unsupported,
    Vectors,
)
from api.engines.releases import id_of, with_adapter
from api.engines.weights import SharedWeights
from api.errors import ContextTooLong, EngineError, UnknownModel
from privacy.base_model import load_classifier
from privacy.errors import ReleaseInvalid
from privacy.release import VerifiedRelease

_ROWS = 16


class TransformersEncoder:
    """Serves one encoder under one id.

    An embedding is the mean over a text's last hidden states, special tokens included, scaled to
    unit norm (Reimers and Gurevych 2019, arXiv 1908.10084, section 3).

    Args:
        base_model: folder of the model with its tokenizer; nothing is ever downloaded.
        release: the verified release whose adapter is merged; ``None`` serves the base model.
        model_id: the id it is served under; the release's by default.
        weights: those of the engines with which this one shares what is equal.

    Raises:
        EngineError: the model or the adapter cannot be loaded, or do not belong together.
    """

    def __init__(
        self,
        base_model: Path,
        release: VerifiedRelease | None = None,
        *,
        model_id: str | None = None,
        weights: SharedWeights | None = None,
    ) -> None:
        self._model_id = id_of(release, model_id)
        self._lock = threading.Lock()
        try:
            model = self._loaded(base_model, release)
            self._tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
            if release is not None:
                model = with_adapter(model, release, self._fresh)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ReleaseInvalid) as error:
            raise EngineError(f"{self._model_id} cannot be loaded: {error}") from error
        self._model = model.eval()
        if weights is not None:
            weights.share(self._model)
        self.context_length = int(model.config.max_position_embeddings)

    def _loaded(self, base_model: Path, release: VerifiedRelease | None) -> Any:
        """The base model, with a head where it or the release has one."""
        config = AutoConfig.from_pretrained(base_model, local_files_only=True)
        options: dict[str, Any] = {"local_files_only": True, "dtype": torch.float32}
        labels = None if release is None else _labels(release)
        own = any("SequenceClassification" in name for name in config.architectures or ())
        self._has_head = labels is not None or own
        self._pools = False
        self._fresh: frozenset[str] = frozenset()
        if not self._has_head:
            return AutoModel.from_pretrained(base_model, **options)
        model, self._fresh = load_classifier(str(base_model), labels, **options)
        # As in training: a new linear head reads the mean of the states, see LoraTrainer.
        head = getattr(model, "classifier", None)
        self._pools = "classifier.weight" in self._fresh and type(head) is torch.nn.Linear
        return model

    def models(self) -> list[str]:
        """The one id that it serves."""
        return [self._model_id]

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """Refused: it reads, it does not write."""
        raise self._silent(request.model)

    def stream(self, request: GenerationRequest) -> Iterator[Item]:
        """Refused: it reads, it does not write."""
        raise self._silent(request.model)

    def embed(self, model: str, texts: tuple[str, ...]) -> Vectors:
        """See :meth:`api.engines.base.Encoder.embed`."""
        self._check(model)
        found: list[tuple[float, ...]] = []
        spent = 0
        for given in self._batches(texts):
            mean = self._mean(given)
            found += [tuple(row) for row in torch.nn.functional.normalize(mean, dim=-1).tolist()]
            spent += int(given["attention_mask"].sum())
        return Vectors(tuple(found), spent)

    def classify(self, model: str, texts: tuple[str, ...]) -> Classes:
        """See :meth:`api.engines.base.Encoder.classify`."""
        self._check(model)
        if not self._has_head:
            raise Unsupported("model", "the model has no classification head")
        found: list[tuple[float, ...]] = []
        spent = 0
        for given in self._batches(texts):
            if self._pools:
                mean = self._mean(given)
                with torch.inference_mode():
                    logits = self._model.classifier(mean)
            else:
                logits = self._run(self._model, given).logits.float()
            found += [tuple(row) for row in logits.softmax(-1).tolist()]
            spent += int(given["attention_mask"].sum())
        names = self._model.config.id2label
        labels = tuple(str(names[i]) for i in range(self._model.config.num_labels))
        return Classes(labels, tuple(found), spent)

    def _batches(self, texts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """Token ids and masks of shape (rows, width), a few rows at a time, in order."""
        for start in range(0, len(texts), _ROWS):
            given = self._tokenizer(
                list(texts[start : start + _ROWS]), padding=True, return_tensors="pt"
            )
            width = given["input_ids"].shape[1]
            if width > self.context_length:
                raise ContextTooLong(width, 0, self.context_length)
            yield {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}

    def _mean(self, given: dict[str, Any]) -> torch.Tensor:
        """Mean states of shape (rows, width of the model)."""
        body = getattr(self._model, self._model.base_model_prefix, self._model)
        states = self._run(body, given).last_hidden_state.float()
        mask = given["attention_mask"][..., None].bool()
        mean: torch.Tensor = states.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
        return mean

    def _run(self, model: Any, given: dict[str, Any]) -> Any:
        try:
            with self._lock, torch.inference_mode():
                return model(**given)
        except Exception as error:
            raise EngineError(f"the encoding failed ({type(error).__name__})") from None

    def _check(self, model: str) -> None:
        if model != self._model_id:
            raise UnknownModel(f"this engine serves {self._model_id} only")

    def _silent(self, model: str) -> Unsupported:
        self._check(model)
        return Unsupported("model", "the model makes embeddings or classes, no text")


def _labels(release: VerifiedRelease) -> int | None:
    """How many labels the release's head has; None where it has no head."""
    if release.adapter_config.get("task_type") != "SEQ_CLS":
        return None
    heads = [
        array.shape[0]
        for name, array in release.tensors().items()
        if name.endswith((".classifier.weight", ".score.weight", ".out_proj.weight"))
    ]
    if not heads:
        raise EngineError(f"{release.id} names a classification head and holds none")
    return int(heads[-1])
