"""Duration samples that a journal keeps: of each stratum the last accepted ones. Reads no database."""

from __future__ import annotations

from collections import Counter
from typing import Final

from pika_async.polling.durations import DurationSample

__all__ = ["SAMPLES_PER_STRATUM", "latest_samples"]

#: Duration samples kept for each stratum.
SAMPLES_PER_STRATUM: Final = 256


def latest_samples(samples: list[DurationSample]) -> list[DurationSample]:
    """Return the last accepted `SAMPLES_PER_STRATUM` samples of each stratum, in the order of acceptance."""
    counts: Counter[str] = Counter()
    latest = []
    for sample in sorted(samples, key=lambda sample: sample.accepted_at)[::-1]:
        counts[sample.stratum] += 1
        if counts[sample.stratum] <= SAMPLES_PER_STRATUM:
            latest.append(sample)
    return latest[::-1]
