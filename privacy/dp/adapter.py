"""LoRA adapters: injected by PEFT, started from an orthonormal A, read and written as arrays.

By default only B is trained and A stays frozen with orthonormal rows (FFA-LoRA, Sun et al. 2024,
arXiv 2403.12313): averaging B over departments is then exactly averaging the product, and the
noise enters once, linearly. Only this module makes and reads PEFT adapters;
:mod:`privacy.dp.one_pass` knows its layers.

An adapter travels as a mapping from PEFT's own tensor names
(``base_model.model.….lora_B.weight``) to float32 arrays, which is what a release stores.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

from privacy.dp.adapter_config import Adapter as Adapter
from privacy.dp.adapter_config import AdapterConfig as AdapterConfig
from privacy.dp.errors import AdapterMismatch


def inject(model: PreTrainedModel, config: AdapterConfig) -> PeftModel:
    """Add an adapter to ``model``, which must already be on its device (Opacus issue 820).

    Raises :class:`~privacy.dp.errors.AdapterMismatch` where the model has none of the targets.
    """
    peft_config = _peft_config(model, config)
    try:
        peft_model: PeftModel = get_peft_model(model, peft_config)
    except ValueError as error:
        raise AdapterMismatch(
            f"no adapter fits targets={list(config.targets)} on {type(model).__name__}: name its "
            "linear projections in training.targets of the policy"
        ) from error
    for name, parameter in peft_model.named_parameters():
        if _travels(name):
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(config.is_trained(name))
    for name, module in peft_model.named_modules():
        if ".modules_to_save." in name:
            _between_precisions(module, model.dtype)
    return peft_model


def initial_adapter(
    model: PreTrainedModel, config: AdapterConfig, seed: int, fresh: Collection[str] = ()
) -> Adapter:
    """B all zero and A with orthonormal rows from the public ``seed``; changes the model in nothing.

    ``fresh``: names of the model's own parameters without a pretrained value, such as those of a
    new classification head: matrices are drawn from N(0, 0.02²) by the seed, vectors are zero.
    Other modules that are trained whole begin with the base model's values.

    Raises :class:`~privacy.dp.errors.AdapterMismatch` as :func:`inject` does, and where the rank
    exceeds the width of a projection (its rows could not be orthonormal).
    """
    rng = np.random.default_rng(seed)
    with attached(model, config) as peft_model:
        given = read_adapter(peft_model)
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, array in sorted(given.items()):
        if "lora_" not in name and name.removeprefix("base_model.model.") not in fresh:
            tensors[name] = array
            continue
        if "lora_A" not in name:
            drawn = "lora_" not in name and array.ndim > 1
            value = rng.normal(0, 0.02, array.shape) if drawn else np.zeros(array.shape)
            tensors[name] = value.astype(np.float32)
            continue
        rank, width = array.shape
        if rank > width:
            raise AdapterMismatch(
                f"rank={rank} exceeds the width {width} of {name}: choose a rank of at most {width}"
            )
        q, _ = np.linalg.qr(rng.standard_normal((width, rank)))
        tensors[name] = np.ascontiguousarray(q.T, dtype=np.float32)
    return tensors


class attached:  # noqa: N801 - used as a context manager, named like one
    """``with attached(model, config, adapter) as peft_model``: the base model is restored on exit.

    Loading the base model costs seconds, injecting an adapter milliseconds, so one loaded base
    serves many adapters, one at a time.
    """

    def __init__(
        self, model: PreTrainedModel, config: AdapterConfig, adapter: Adapter | None = None
    ) -> None:
        self._model = model
        self._config = config
        self._adapter = adapter
        self._peft_model: PeftModel | None = None
        self._whole: dict[str, nn.Module] = {}

    def __enter__(self) -> PeftModel:
        self._whole = {
            name: module
            for name, module in self._model.named_modules()
            if name.rpartition(".")[2] in self._config.trained_modules
        }
        self._peft_model = inject(self._model, self._config)
        if self._adapter is not None:
            try:
                write_adapter(self._peft_model, self._adapter)
            except AdapterMismatch:
                self.__exit__()
                raise
        return self._peft_model

    def __exit__(self, *error: object) -> None:
        if self._peft_model is not None:
            self._peft_model.unload()
            # PEFT leaves its copies of modules that were trained whole in the base model.
            for name, module in self._whole.items():
                parent, _, attribute = name.rpartition(".")
                setattr(self._model.get_submodule(parent), attribute, module)
            # PEFT leaves its configuration on the base and would warn of a second adapter.
            if hasattr(self._model, "peft_config"):
                del self._model.peft_config
            self._peft_model = None


def read_adapter(model: PeftModel, *, trained_only: bool = False) -> Adapter:
    """The adapter's tensors as float32 arrays; copies, independent of the model."""
    trained = {_stored_name(name) for name, p in model.named_parameters() if p.requires_grad}
    return {
        name: tensor.detach().to("cpu", torch.float32).numpy().copy()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
        if not trained_only or name in trained
    }


def write_adapter(model: PeftModel, adapter: Adapter) -> None:
    """Set every tensor of the adapter.

    Raises :class:`~privacy.dp.errors.AdapterMismatch` naming the tensors that are missing, unknown
    or of another shape or type, or not finite; the model is then unchanged.
    """
    parameters = adapter_parameters(model)
    faults = [f"{name} is missing" for name in parameters.keys() - adapter.keys()]
    faults += [f"{name} is unknown" for name in adapter.keys() - parameters.keys()]
    for name in parameters.keys() & adapter.keys():
        expected, array = tuple(parameters[name].shape), adapter[name]
        if array.shape != expected:
            faults.append(f"{name} has shape {array.shape} instead of {expected}")
        elif array.dtype != np.float32:
            faults.append(f"{name} is {array.dtype} instead of float32")
        elif not np.isfinite(array).all():
            faults.append(f"{name} holds a value that is not finite")
    if faults:
        shown = "; ".join(sorted(faults)[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise AdapterMismatch(f"the adapter does not fit the model: {shown}{more}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(adapter[name])))


def adapter_parameters(model: PeftModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by the name under which they are stored."""
    return {_stored_name(n): p for n, p in model.named_parameters() if _travels(n)}


def peft_config_json(
    model: PreTrainedModel, config: AdapterConfig, base_name: str
) -> dict[str, Any]:
    """Content of PEFT's ``adapter_config.json``; ``base_name`` is a name, never a local path."""
    with attached(model, config) as peft_model:
        written: dict[str, Any] = peft_model.peft_config["default"].to_dict()
    written = {key: _plain(value) for key, value in written.items()}
    return written | {"base_model_name_or_path": base_name, "inference_mode": True}


def config_of(written: Mapping[str, Any], factors: Literal["B", "AB"]) -> AdapterConfig:
    """The shape that :func:`peft_config_json` wrote; ``factors`` is not part of PEFT's file.

    Raises :class:`~privacy.dp.errors.AdapterMismatch` where it is none of ours.
    """
    try:
        layers, targets = written["layers_to_transform"], written["target_modules"]
        none = targets == DUMMY_TARGET_MODULES
        return AdapterConfig(
            rank=int(written["r"]),
            alpha=int(written["lora_alpha"]),
            targets=() if none else tuple(targets),
            last_layers=0 if none else None if layers is None else len(layers),
            factors=factors,
            trained_modules=tuple(written["modules_to_save"] or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterMismatch(f"the adapter's configuration lacks or misuses {error}") from None


def _peft_config(model: PreTrainedModel, config: AdapterConfig) -> LoraConfig:
    if config.last_layers == 0 and not config.trained_modules:
        raise AdapterMismatch(
            "last_layers=0 without trained_modules leaves nothing to train: adapt at least one "
            "block, or name a module that is trained whole"
        )
    layers = None
    total = int(model.config.num_hidden_layers)
    if config.last_layers is not None and 0 < config.last_layers < total:
        layers = list(range(total - config.last_layers, total))
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=DUMMY_TARGET_MODULES if config.last_layers == 0 else list(config.targets),
        layers_to_transform=layers,
        modules_to_save=list(config.trained_modules) or None,
        task_type="SEQ_CLS" if is_classifier(model) else "CAUSAL_LM",
    )


def is_classifier(model: PreTrainedModel) -> bool:
    """Whether the model labels sequences instead of continuing them."""
    return type(model).__name__.endswith("ForSequenceClassification")


def _between_precisions(module: nn.Module, dtype: torch.dtype) -> None:
    """Let a module that is trained in float32 stand in a model that computes in ``dtype``."""
    if isinstance(module, nn.Linear):
        module.register_forward_pre_hook(lambda linear, given: (given[0].to(linear.weight.dtype),))
    elif isinstance(module, nn.Embedding):
        module.register_forward_hook(lambda _, __, states: states.to(dtype))


def _travels(parameter_name: str) -> bool:
    return "lora_" in parameter_name or ".modules_to_save." in parameter_name


def _stored_name(parameter_name: str) -> str:
    return parameter_name.replace(".modules_to_save.default.", ".").replace(".default.", ".")


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    if isinstance(value, dict | str | int | float | None):
        return value
    return str(value)
