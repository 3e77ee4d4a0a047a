"""Finds the store of a repository that has commits which a caller names."""

from pathlib import Path

from services.git import failures
from services.git.names import is_commit_id
from services.git.stores.mirrors import Mirrors
from services.git.stores.results import ResultStores


class CommitStores:
    """The stores of the repositories that have been fetched."""

    def __init__(self, mirrors: Mirrors, results: ResultStores) -> None:
        self._mirrors = mirrors
        self._results = results

    async def store_with(self, repository_id: str, *commit_ids: str) -> Path:
        """Return the result store of a repository, in which the commits can be read.

        Raises NotFound: REPOSITORY_NOT_FOUND, REVISION_NOT_FOUND.
        """
        if not self._mirrors.exists(repository_id):
            raise failures.repository_not_found(repository_id)
        for commit_id in commit_ids:
            if not is_commit_id(commit_id) or not await self._results.has(repository_id, commit_id):
                raise failures.revision_not_found(commit_id)
        return await self._results.store(repository_id)
