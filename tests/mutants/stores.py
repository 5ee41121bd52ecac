"""Mutants of the results that are kept in a store."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_S3: Final = ("tests/http/test_s3.py",)
_STORIES: Final = ("tests/stories/test_stored_results.py",)
_COMMANDS: Final = ("tests/cli/test_cli_stored.py",)

MUTANTS: Final = (
    Mutant(
        "stored-without-a-condition",
        "_http/s3.py",
        '{"IfNoneMatch": "*"} if is_new else {}',
        "{}",
        "of two writers at the same moment the later one overwrites the object of the first",
        _S3,
    ),
    Mutant(
        "stored-over-another-object",
        "_http/s3.py",
        "if found is not None and (replaces is None or found.sha256 != replaces):",
        "if False:",
        "an object of other content is overwritten",
        _S3,
    ),
    Mutant(
        "stored-unseen",
        "_http/s3.py",
        "await self.find(place, may_be_hidden=is_conditional)",
        "await self.find(place)",
        "an object that may not be read is overwritten where the store has no conditional writes",
        _S3,
    ),
    Mutant(
        "stored-object-is-a-stranger",
        "_http/s3.py",
        "if found == StoredObject(size, sha256):",
        "if False:",
        "an upload whose answer was lost conflicts with itself",
        _S3,
    ),
    Mutant(
        "stored-without-a-checksum",
        "_http/s3.py",
        " ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),",
        "",
        "bytes that have changed on the disk are stored under the digest of others",
        _S3,
    ),
    Mutant(
        "check-leaves-an-upload",
        "_http/s3.py",
        "                await client.abort_multipart_upload(",
        "                dict(",
        "each batch leaves an upload in parts in the bucket",
        _S3,
    ),
    Mutant(
        "store-checked-by-its-first-result",
        "_runtime/stored_results.py",
        "            await self.store.check(prefix)\n",
        "            pass\n",
        "a missing bucket is noticed once the videos are paid for",
        _STORIES,
    ),
    Mutant(
        "refused-result-counts-as-stored",
        "_runtime/stored_results.py",
        'raise AbortDownload(f"it was fetched whole and not stored: {failure}") from None',
        "del failure",
        "a result that the store refused is lost",
        _STORIES,
    ),
    Mutant(
        "stored-result-is-fetched-again",
        "_runtime/stored_results.py",
        "        if stored is not None and job.sha256 is not None:\n",
        "        if False:\n",
        "a result whose record was lost after its upload is fetched and sent once more",
        _STORIES,
    ),
    Mutant(
        "archived-object-keeps-its-name",
        "_runtime/stored_results.py",
        "None if earlier is None or earlier.object_url == str(place) else earlier.sha256",
        "None",
        "a job that is paid for again is never stored where the old object cannot be removed",
        _STORIES,
    ),
    Mutant(
        "stored-job-is-unfinished",
        "_runtime/job_files.py",
        " and not has_file and job.object_url is None",
        " and not has_file",
        "resume takes every stored result for a missing file",
        _STORIES,
    ),
    Mutant(
        "half-a-video-beside-the-journal",
        "cli/batch_folder.py",
        "(self.videos, self.videos.parent)",
        "(self.videos,)",
        "a kill inside an upload leaves its file in the output folder for good",
        _COMMANDS,
    ),
)
