"""A verified release as a model: its id, and its adapter in or beside the weights of a base model."""

from collections.abc import Collection
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from api.errors import EngineError
from privacy.base_model import model_digest
from privacy.release import VerifiedRelease


def id_of(release: VerifiedRelease | None, model_id: str | None) -> str:
    """The id under which a model is served: the one given to it, else its release's.

    Raises:
        EngineError: it has neither.
    """
    if model_id is not None:
        return model_id
    if release is None:
        raise EngineError("the base model is served only under a name that is given to it")
    return release.id


def with_adapter(
    model: Any, release: VerifiedRelease, fresh: Collection[str] = (), *, merge: bool = True
) -> Any:
    """``model`` with the release's adapter added to its weights, or computed beside them.

    Everything comes from the bytes that were verified, not from the folder they were read from.

    ``fresh``: parameters that the base model's files do not hold, such as a new head's, and that
    are therefore not part of its digest.

    Raises:
        EngineError: they do not belong together.
    """
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in fresh}
    expected, found = release.run["base_model_digest"], model_digest(kept)
    if found != expected:
        raise EngineError(
            f"{release.id} was trained on base model {expected[:12]}..., this one is {found[:12]}..."
        )
    tensors = {name: torch.from_numpy(array) for name, array in release.tensors().items()}
    peft_model = get_peft_model(model, LoraConfig.from_peft_type(**release.adapter_config))
    loaded: Any = set_peft_model_state_dict(peft_model, tensors)
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    if missing or loaded.unexpected_keys:
        raise EngineError(
            f"{release.id}: {len(missing)} tensors of the adapter are missing "
            f"and {len(loaded.unexpected_keys)} are unknown to the model"
        )
    return peft_model.merge_and_unload(safe_merge=True) if merge else peft_model.get_base_model()
