"""Public held-out records as the hub evaluates on them: prompts with labels, and examples for the loss."""

from client.encoding import encode_records
from client.errors import RowFault
from client.records import DataSource
from client.rows import label_completion, label_prompt
from intramural.node import read_public
from privacy.dp.trainer import LoraTrainer
from server.evaluate import PublicSet

EVALUATION_LIMIT = 200
"""Records that are evaluated on, unless told otherwise."""


def public_set(
    source: DataSource, limit: int | None, max_tokens: int, trainer: LoraTrainer
) -> tuple[PublicSet, tuple[RowFault, ...]]:
    """The records of a public file, and a fault for each that is left out.

    ``limit``: so many of them, evenly spread; None: all. Labels are looked for among the file's own.

    Raises:
        RecordError: the file cannot be read.
        EvaluationInvalid: it has no record that fits into ``max_tokens``.
    """
    public = read_public(source, limit)
    examples, unfit = encode_records(
        public.records, trainer.tokenizer, max_tokens, file=str(source.path)
    )
    faults = (*public.faults, *unfit)
    skipped = {fault.line for fault in unfit}
    labelled = [r for r in public.records if r.kind == "label" and r.line not in skipped]
    labels = sorted({r.completion for r in labelled})
    if len(labels) < 2:
        return PublicSet(examples=examples), faults
    made = PublicSet(
        prompts=[label_prompt(r.prompt) for r in labelled],
        answers=[labels.index(r.completion) for r in labelled],
        candidates=[label_completion(label) for label in labels],
        examples=examples,
    )
    return made, faults
