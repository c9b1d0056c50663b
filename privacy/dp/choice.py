"""Choosing among candidate completions: classification with a causal language model.

Each prompt is read once; its key-value cache is then shared by all candidates, so that choosing
among many labels costs little more than reading the prompt.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from privacy.dp.encode import encode_completion
from privacy.dp.errors import InvalidExample

SEQUENCES_AT_ONCE = 64


def choose(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    candidates: Sequence[str],
    max_tokens: int,
) -> list[int]:
    """For each prompt the index of the candidate with the highest mean token log-probability.

    The mean over the candidate's tokens, so that longer ones are not at a disadvantage; ties go to
    the earlier candidate. Raises :class:`~privacy.dp.errors.InvalidExample` without candidates or
    for an empty one.
    """
    if not candidates:
        raise InvalidExample("choosing needs at least one candidate completion")
    encoded = [encode_completion(tokenizer, "", c, max_tokens) for c in candidates]
    targets = [e.input_ids[e.completion_start :] for e in encoded]
    room = max_tokens - max(len(t) for t in targets)
    contexts = [
        e.input_ids[: e.completion_start]
        for e in (
            encode_completion(tokenizer, p, candidates[0], max_tokens + len(targets[0]))
            for p in prompts
        )
    ]
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, context in enumerate(contexts):
        by_length[min(len(context), room)].append(index)
    chosen = [0] * len(prompts)
    together = max(1, SEQUENCES_AT_ONCE // len(candidates))
    for length, indices in by_length.items():
        for start in range(0, len(indices), together):
            group = indices[start : start + together]
            scores = _scores(model, [contexts[i][-length:] for i in group], targets)
            for index, best in zip(group, scores.argmax(dim=1).tolist(), strict=True):
                chosen[index] = best
    return chosen


def _scores(
    model: PreTrainedModel, contexts: list[tuple[int, ...]], targets: list[tuple[int, ...]]
) -> torch.Tensor:
    """Mean log-probability per token, shape ``(contexts, targets)``; contexts of one length."""
    device = model.device
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    read = decoder(
        input_ids=torch.tensor(contexts, device=device),
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
    )
    first = head(read.last_hidden_state[:, -1]).float().log_softmax(-1)
    n, k, width = len(contexts), len(targets), max(len(t) for t in targets)
    ids = torch.tensor([[*t, *([0] * (width - len(t)))] for t in targets], device=device)
    lengths = torch.tensor([len(t) for t in targets], device=device)
    valid = torch.arange(width, device=device)[None] < lengths[:, None]
    logprobs = torch.zeros(n, k, width, device=device)
    logprobs[:, :, 0] = first[:, ids[:, 0]]
    if width > 1:
        read.past_key_values.batch_repeat_interleave(k)
        # What follows a candidate's last token is never attended to by what precedes it: causal.
        states = decoder(
            input_ids=ids[:, :-1].repeat(n, 1),
            past_key_values=read.past_key_values,
            use_cache=True,
        ).last_hidden_state
        wanted = valid[:, 1:].repeat(n, 1)
        targets_next = ids[:, 1:].repeat(n, 1)
        rest = torch.zeros(n * k, width - 1, device=device)
        rest[wanted] = (
            head(states[wanted]).float().log_softmax(-1).gather(1, targets_next[wanted][:, None])
        )[:, 0]
        logprobs[:, :, 1:] = rest.view(n, k, width - 1)
    return (logprobs * valid).sum(-1) / lengths
