"""A department's records as token sequences, one a record; none belongs to two units of privacy."""

from collections.abc import Callable, Iterable
from dataclasses import asdict

from transformers import PreTrainedTokenizerBase

from client.errors import RowFault
from client.rows import Record
from privacy.dp.encode import Example, encode_chat, encode_completion
from privacy.dp.errors import InvalidExample


def encode_record(record: Record, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Example:
    """The record for a causal language model; labels and texts take their instruction form.

    Raises :class:`~privacy.dp.errors.InvalidExample` where it does not fit into ``max_tokens``.
    """
    if record.messages is not None:
        return encode_chat(tokenizer, [asdict(m) for m in record.messages], max_tokens)
    if record.kind == "text":
        return encode_text(tokenizer, record.completion, max_tokens)
    plain = record.as_completion()
    return encode_completion(tokenizer, plain.prompt, plain.completion, max_tokens)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> Example:
    """Plain text, learned from its first token on; what exceeds ``max_tokens`` is cut off."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) + 2 > max_tokens:  # the beginning- and end-of-text tokens
        text = str(tokenizer.decode(ids[: max(1, max_tokens - 8)]))
    return encode_completion(tokenizer, "", text, max_tokens)


def encode_records(
    records: Iterable[Record],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    *,
    file: str,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Example], list[RowFault]]:
    """Examples of the records that fit, and a fault for each that does not, by file and line."""
    examples: list[Example] = []
    faults: list[RowFault] = []
    for done, record in enumerate(records, start=1):
        try:
            examples.append(encode_record(record, tokenizer, max_tokens))
        except InvalidExample as error:
            faults.append(RowFault(file, record.line, str(error)))
        if progress is not None:
            progress(done)
    return examples, faults
