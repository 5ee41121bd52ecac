"""Mutants of what a person touches of a cluster: its board, its batches, and the files that workers leave."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

CLIENT: Final = ("tests/engines/test_cluster_client.py",)
READER: Final = ("tests/engines/test_cluster_reader.py",)
FOLDERS: Final = ("tests/http/test_target_folders.py",)

MUTANTS: Final = (
    Mutant(
        "cluster-one-check-ends-a-batch",
        "engines/cluster_client.py",
        "if self._agreeing >= AGREEING:",
        "if self._agreeing:",
        "a batch ends although a worker is about to try its account again",
        CLIENT,
    ),
    Mutant(
        "cluster-checks-need-not-agree",
        "engines/cluster_client.py",
        "            self._agreeing = 0\n            return\n",
        "            return\n",
        "checks that find an account stopped add up over a whole batch",
        CLIENT,
    ),
    Mutant(
        "cluster-stop-without-a-worker",
        "engines/cluster_client.py",
        "is_stopped = has_workers and all(reasons.values())",
        "is_stopped = all(reasons.values())",
        "a batch ends for what a worker that has gone left as a reason",
        CLIENT,
    ),
    Mutant(
        "cluster-batch-asks-for-keys",
        "engines/keyless.py",
        "transport=transport, uploader",
        "transport=None, uploader",
        "a batch on workers needs the keys that only they should have",
        CLIENT,
    ),
    Mutant(
        "cluster-saves-what-no-account-can-do",
        "engines/cluster.py",
        "        for each in given:\n            await capable_accounts(config, each)\n",
        "",
        "a request that no account can fulfil is saved, and fails in a worker",
        CLIENT,
    ),
    Mutant(
        "cluster-resume-leaves-downloads",
        "engines/job_reads.py",
        "is_idle & (is_unfinished | lacks_file)",
        "is_idle & is_unfinished",
        "a result that could not be downloaded is left to the provider until it expires",
        ("tests/engines/test_cluster.py",),
        "was_not_downloaded",
    ),
    Mutant(
        "cluster-resume-downloads-again",
        "engines/job_reads.py",
        " & jobs.c.file.is_(None) & jobs.c.error.is_not(None)",
        "",
        "resume queues every job that has its file already",
        ("tests/engines/test_cluster.py",),
        "was_not_downloaded",
    ),
    Mutant(
        "cluster-board-serves-any-file",
        "engines/cluster_reader.py",
        "return file.suffix in MEDIA_SUFFIXES and file.is_file()",
        "return file.is_file()",
        "a row of the database makes the board serve any file of the machine",
        READER,
        "no_other_file",
    ),
    Mutant(
        "partial-file-of-a-live-download-removed",
        "_http/partial_file.py",
        "if now - entry.stat(follow_symlinks=False).st_mtime > STALE_S:",
        "if now >= 0:",
        "a download removes the files that other machines are writing",
        FOLDERS,
    ),
    Mutant(
        "partial-files-stay-for-ever",
        "_http/partial_file.py",
        "        self._folders.remove_stale(self.target.parent, os.fstat(fd).st_mtime)\n",
        "",
        "what killed workers were writing fills the shared folder",
        FOLDERS,
    ),
    Mutant(
        "partial-files-are-searched-for-once",
        "_http/partial_file.py",
        "        self._searched_at[folder] = at\n",
        "        self._searched_at[folder] = float('inf')\n",
        "a worker that runs for weeks removes nothing that others leave meanwhile",
        FOLDERS,
    ),
    Mutant(
        "partial-files-of-workers-swept-by-a-batch",
        "cli/cluster_folder.py",
        "    def _remove_stale_files(self) -> None:\n",
        "    def _remove_nothing(self) -> None:\n",
        "a batch on workers removes the files that they are writing into its folder",
        ("tests/cli/test_cli_cluster.py",),
        "leaves_the_files",
    ),
)
