"""How near generated texts come to references: corpus BLEU and ROUGE-L over lower-case words.

Words are what white space separates, as in E2E NLG, whose texts come with their punctuation set
apart. Figures by other tokenisations differ, so these compare with each other first.
"""

import math
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]
LONGEST = 4


def bleu(found: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU-4 in [0, 1] (Papineni et al. 2002, section 2.3), without smoothing.

    ``references``: at least one for each of ``found``. Raises :class:`ValueError` where the two
    differ in number.
    """
    matched, possible = [0] * LONGEST, [0] * LONGEST
    length = reference_length = 0
    for text, several in zip(found, references, strict=True):
        words, wanted = _words(text), [_words(one) for one in several]
        length += len(words)
        lengths = [len(one) for one in wanted]
        reference_length += min(lengths, key=lambda n: (abs(n - len(words)), n))
        for n in range(1, LONGEST + 1):
            own = _grams(words, n)
            most: Counter[tuple[str, ...]] = Counter()
            for one in wanted:
                most |= _grams(one, n)
            matched[n - 1] += (own & most).total()
            possible[n - 1] += own.total()
    if not all(matched):
        return 0.0
    precision = sum(math.log(m / p) for m, p in zip(matched, possible, strict=True)) / LONGEST
    return math.exp(min(0.0, 1 - reference_length / length) + precision)


def rouge_l(found: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean over texts of the best F1 of longest common subsequences (Lin 2004, section 3.1).

    Arguments as :func:`bleu`; in [0, 1].
    """
    scores = [
        max(_overlap(_words(text), _words(one)) for one in several)
        for text, several in zip(found, references, strict=True)
    ]
    return math.fsum(scores) / len(scores)


def _words(text: str) -> list[str]:
    return text.lower().split()


def _grams(words: Words, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _overlap(words: Words, reference: Words) -> float:
    """2 L / (m + n): F1 of the common subsequence's recall and precision."""
    row = [0] * (len(reference) + 1)
    for word in words:
        above = 0
        for i, other in enumerate(reference):
            above, row[i + 1] = row[i + 1], above + 1 if word == other else max(row[i], row[i + 1])
    both = len(words) + len(reference)
    return 2 * row[-1] / both if both else 0.0
