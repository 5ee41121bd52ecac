"""Facts of a job that the page shows, and the groups of those without a video. Reads no file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pika_async._http.media import PICTURE_SUFFIXES
from pika_async._planning.repetition import is_archived
from pika_async.errors import (
    DownloadFailed,
    GenerationFailed,
    JobError,
    PikaError,
    SubmissionInDoubt,
    SubmissionRejected,
)
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.report.media_facts import MediaFacts

__all__ = [
    "card_of",
    "file_facts",
    "folder_subject",
    "generate_command",
    "is_shown",
    "is_shown_status",
    "problem_groups",
    "problem_of",
    "reason_of",
    "shell_command",
]

#: Keys that a group of problems names as examples.
MAX_EXAMPLES: Final = 5
#: Fields of a card that its group of problems needs.
_PROBLEM_FIELDS: Final = ("key", "status", "reason", "error", "earlier", "adopted")
#: Statuses in the order of the groups; the rest come after.
_GROUP_ORDER: Final = ("failed", "unknown", "rejected", "timed_out", "succeeded", "canceled")
#: Fields of a request and the options of `generate` that give them.
_OPTIONS: Final = {
    "image": "--image", "video": "--video", "ingredients_mode": "--ingredients-mode", "effect": "--effect",
    "aspect_ratio": "--aspect-ratio", "frame_rate": "--frame-rate", "guidance_scale": "--guidance-scale",
    "motion": "--motion", "negative_prompt": "--negative-prompt", "seed": "--seed", "model": "--model",
    "duration": "--duration", "resolution": "--resolution", "last_image": "--last-image",
}  # fmt: skip


def is_shown(job: Job) -> bool:
    """Return whether `job` has a card: it is settled or parked. The others are only counted."""
    return is_shown_status(job.status)


def is_shown_status(status: JobStatus) -> bool:
    """Return whether a job with `status` has a card; see `is_shown`."""
    return status in FINAL or status in {JobStatus.UNKNOWN, JobStatus.TIMED_OUT}


def card_of(
    job: Job,
    root: Path,
    *,
    facts: MediaFacts | None = None,
    has_poster: bool = False,
    price: float | None = None,
    subject: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the facts of `job` for its card, as JSON has them; those that are unknown are left out.

    :param root: folder of the page, which links of files are relative to; a file elsewhere is not linked.
    :param facts: shape and length of its file; default none.
    :param has_poster: whether `root`/posters/KEY.jpg exists; default False.
    :param price: price of one charge; default None, unknown.
    :param subject: the words of a command that name the jobs; default: `root`.
    """
    request = job.request
    took = None if job.settled_at is None or job.submitted_at is None else job.settled_at - job.submitted_at
    found = {
        "key": job.key,
        "index": job.index,
        "status": job.status.value,
        "provider": job.provider,
        "task": job.task_id,
        "prompt": request.prompt,
        "effect": request.effect,
        "model": request.model,
        "kind": request.kind,
        "ratio": None if request.aspect_ratio is None else str(request.aspect_ratio),
        "seed": None if (seed := _seed(job)) is None else str(seed),  # a script has no integers beyond 2**53
        "duration": None if request.duration is None else str(request.duration),
        "resolution": request.resolution,
        "shape": _requested_shape(request),
        "seconds": job.video.duration if job.video else None,
        "submitted": _time(job.submitted_at),
        "settled": _time(job.settled_at),
        "took": None if took is None else round(took.total_seconds(), 2),
        "polls": job.polls,
        "attempts": job.attempts,
        "points": job.points,
        "cost": (price if job.cost is None else job.cost) if job.may_be_charged else None,
        "account": None if job.account == job.provider else job.account,
        "route": _route_of(job),
        "reason": None if job.error is None else reason_of(job.error),
        "error": None if job.error is None else job.error.message,
        "earlier": is_archived(job) or None,
        "adopted": job.is_adopted or None,
        "command": _command_again(job, folder_subject(root) if subject is None else subject),
        "stored": job.object_url,
    }
    if job.file is not None:
        found |= file_facts(job.key, job.file, root, facts=facts, has_poster=has_poster)
    return {name: value for name, value in found.items() if value is not None}


def _route_of(job: Job) -> list[list[str]] | None:
    """Return the account, the verdict and the reason of each submission; None if there was at most one."""
    steps = [[step.account, step.verdict, step.reason] for step in job.route]
    return steps if len(steps) > 1 else None


def file_facts(
    key: str, file: Path, root: Path, *, facts: MediaFacts | None = None, has_poster: bool = False
) -> dict[str, Any]:
    """Return the facts of the downloaded `file` of the job `key`, which its card has beside, or in place of, others.

    See `card_of` for the parameters.
    """
    facts, link = facts or MediaFacts(), _link(file, root)
    found = {
        "shape": facts.shape,
        "seconds": facts.seconds,
        "file": link,
        "stored": file.as_posix() if link is None else None,
        "picture": (link is not None and file.suffix in PICTURE_SUFFIXES) or None,
        "poster": f"./posters/{quote(key, safe='')}.jpg" if has_poster else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _seed(job: Job) -> int | None:
    return job.video.seed if job.video is not None and job.video.seed is not None else job.request.seed


def _requested_shape(request: GenerationRequest) -> tuple[int, int] | None:
    ratio = request.ratio
    return None if ratio is None else (ratio.numerator, ratio.denominator)


def _link(file: Path, root: Path) -> str | None:
    start, path = f"{root.as_posix()}/", file.as_posix()
    if path.startswith(start):  # the usual case; a batch has thousands
        return "./" + quote(path.removeprefix(start), safe="/")
    finders: tuple[Callable[[], Path], ...] = (lambda: root, root.absolute, root.resolve)
    for find in finders:
        if file.is_relative_to(base := find()):
            return "./" + quote(file.relative_to(base).as_posix(), safe="/")
    return None


def _time(at: Any) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")


# --- commands --------------------------------------------------------------------------------------------------------


def folder_subject(root: Path) -> tuple[str]:
    """Return the words of a command that name the jobs of the folder `root`, whatever the working directory."""
    return (str(root.absolute()),)


def shell_command(name: str, subject: Sequence[str], *rest: str) -> str:
    """Return the command `name` for the jobs that the words `subject` name, quoted for a shell."""
    return shlex.join(["pika-async", name, *subject, *rest])


def generate_command(request: GenerationRequest, provider: str) -> str | None:
    """Return the command that generates `request` anew, quoted for a shell; None if its input has no name there."""
    words = ["pika-async", "generate", "--provider", provider]
    if any(isinstance(media, bytes) for media in (request.image, request.video, request.last_image)):
        return None
    for field, option in _OPTIONS.items():
        value = getattr(request, field)
        if value is not None:
            words.append(f"{option}={value}")
    for ingredient in request.ingredients:
        if isinstance(ingredient, bytes):
            return None
        words.append(f"--ingredient={ingredient}")
    if request.camera is not None and request.camera.moves:
        words.append("--camera=" + ",".join(f"{axis}={move}" for axis, move in request.camera.moves.items()))
    if request.sfx is not None:
        words.append("--sfx" if request.sfx else "--no-sfx")
    words += ["--extend"] * request.extend + ["--no-strict"] * (not request.strict)
    return shlex.join([*words, "--", request.prompt])


def _command_again(job: Job, subject: Sequence[str]) -> str | None:
    if is_archived(job):
        return None
    match job.status:
        case JobStatus.UNKNOWN:
            return shell_command("resolve", subject, job.key)
        case JobStatus.TIMED_OUT:
            return shell_command("resume", subject)
        case JobStatus.SUCCEEDED if job.error is not None:
            return shell_command("resume", subject)
        case _ if job.is_adopted:  # its prompt is not known
            return None
        case JobStatus.SUCCEEDED:
            return generate_command(job.request, job.provider)
        case JobStatus.FAILED:
            return shell_command("retry", subject, job.key, "--new-seed")
        case _:
            return shell_command("retry", subject, job.key)


# --- problems --------------------------------------------------------------------------------------------------------


def reason_of(error: PikaError) -> str:
    """Return why a job ended without a video, without the name of the job, so that equal reasons are equal."""
    if isinstance(error, SubmissionRejected):
        return f"HTTP {error.http_status}: {error.reason}" if error.http_status else error.reason
    if isinstance(error, GenerationFailed):
        return error.reason or "no reason given"
    if isinstance(error, SubmissionInDoubt):
        return error.reason
    if isinstance(error, DownloadFailed):
        return f"download failed: {error.reason}"
    if isinstance(error, JobError):
        return error.message.partition(": ")[2]
    return error.message


def problem_of(card: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the facts of `card` that its group of problems needs; None if its video is there."""
    if card["status"] == JobStatus.SUCCEEDED.value and "error" not in card:
        return None
    return {name: card[name] for name in _PROBLEM_FIELDS if name in card}


def problem_groups(cards: Iterable[Mapping[str, Any]], subject: Sequence[str]) -> list[dict[str, Any]]:
    """Return the cards without a video by status and reason: how many, the first keys, and the command that helps.

    The groups are in the order of the page, larger ones first within a status. A job that was paid for again is not
    a problem any more.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    adopted = set()
    for problem in filter(None, map(problem_of, cards)):
        if "earlier" not in problem:
            groups.setdefault((problem["status"], problem.get("reason", "no reason given")), []).append(problem["key"])
            adopted |= {problem["key"]} if "adopted" in problem else set()
    ordered = sorted(groups.items(), key=lambda group: (_GROUP_ORDER.index(group[0][0]), -len(group[1])))
    return [
        {
            "status": status, "reason": reason, "count": len(keys), "keys": keys[:MAX_EXAMPLES],
            "command": _group_command(status, keys, adopted, subject),
        }
        for (status, reason), keys in ordered
    ]  # fmt: skip


def _group_command(status: str, keys: Sequence[str], adopted: Collection[str], subject: Sequence[str]) -> str | None:
    """Return the command for a group: by its keys if they are few, so that it acts on no other group.

    :param adopted: keys of jobs whose prompts are not known, so that they cannot be paid for again.
    """
    own = [key for key in keys if key not in adopted]
    few = len(keys) <= MAX_EXAMPLES
    match status:
        case "unknown":
            return shell_command("resolve", subject, *(keys if few else []))
        case "timed_out" | "succeeded":
            return shell_command("resume", subject)
        case _ if not own:
            return None
        case "failed":
            return shell_command("retry", subject, *(own if few else ["--failed"]), "--new-seed")
        case "rejected" if not few:
            return shell_command("retry", subject, "--rejected")
        case _:
            return shell_command("retry", subject, *own)
