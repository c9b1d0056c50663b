"""From text to token sequences: each belongs to one unit of privacy, its completion marked.

A sequence never holds two units (packing would let one unit's gradient carry another's), and the
loss is taken on the completion only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from privacy.dp.errors import InvalidExample


@dataclass(frozen=True)
class Example:
    """One record as tokens.

    ``input_ids[completion_start:]`` is what the model must learn to say; the tokens before it are
    context. There is at least one token of context and one of completion.
    """

    input_ids: tuple[int, ...]
    completion_start: int

    def __post_init__(self) -> None:
        if not 1 <= self.completion_start < len(self.input_ids):
            raise InvalidExample(
                f"completion_start={self.completion_start} must leave at least one token before "
                f"and after it among {len(self.input_ids)}"
            )


@dataclass(frozen=True)
class LabelledExample:
    """A sequence and the index of its label, from 0, among the labels of the task."""

    input_ids: tuple[int, ...]
    label: int

    def __post_init__(self) -> None:
        if not self.input_ids or self.label < 0:
            raise InvalidExample(
                f"label={self.label} must be at least 0, and {len(self.input_ids)} tokens at least 1"
            )


AnyExample = Example | LabelledExample

Unit = tuple[AnyExample, ...]
"""All that one addition or removal adds or removes: one example under unit "record", those of one
subject under unit "subject". Never empty."""


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, max_tokens: int
) -> Example:
    """Prompt and completion with its end; a long prompt loses its beginning.

    A completion that ends with a newline is ended by it; to any other the end-of-text token is
    added. (A label in running text ends naturally with its line; teaching end-of-text there would
    spend most of the budget on it, and teach the model to fall silent elsewhere.)

    An empty prompt becomes the tokenizer's beginning-of-text token, so that plain text is learned
    from its first token on. Raises :class:`~privacy.dp.errors.InvalidExample` for an empty
    completion or one that alone exceeds ``max_tokens``.
    """
    target = _ids(tokenizer, completion)
    if not target:
        raise InvalidExample("the completion is empty; give at least one character of it")
    if tokenizer.eos_token_id is not None and not completion.endswith("\n"):
        target = [*target, int(tokenizer.eos_token_id)]
    return _join(_ids(tokenizer, prompt) or _beginning(tokenizer), target, max_tokens)


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], max_tokens: int
) -> Example:
    """A conversation in the model's chat template; the last message is the completion.

    Raises :class:`~privacy.dp.errors.InvalidExample` for a tokenizer without a chat template, or
    where the template does not keep what precedes the answer unchanged.
    """
    if tokenizer.chat_template is None:
        raise InvalidExample("the base model has no chat template; use prompt and completion")
    context: Any = tokenizer.apply_chat_template(
        list(messages[:-1]), tokenize=False, add_generation_prompt=True
    )
    whole: Any = tokenizer.apply_chat_template(list(messages), tokenize=False)
    if not str(whole).startswith(str(context)):
        raise InvalidExample("the chat template rewrites earlier messages once they are answered")
    target = _ids(tokenizer, str(whole)[len(str(context)) :])
    return _join(_ids(tokenizer, str(context)), target, max_tokens)


def _join(context: list[int], target: list[int], max_tokens: int) -> Example:
    room = max_tokens - len(target)
    if room < 1:
        raise InvalidExample(
            f"a completion of {len(target)} tokens leaves no room for its prompt within "
            f"max_tokens={max_tokens}"
        )
    kept = context[-room:]
    return Example(input_ids=(*kept, *target), completion_start=len(kept))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise InvalidExample("the tokenizer has neither a beginning- nor an end-of-text token")
    return [int(token)]
