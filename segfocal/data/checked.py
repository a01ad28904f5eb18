"""What is trained on is what was checked."""

from __future__ import annotations

from segfocal.data.measure import SampleStats
from segfocal.data.source import Array, Source
from segfocal.errors import UserError


class Checked:
    """A source that tells when a sample is no longer what it was when this was made.

    Args:
        source: the samples; looked at, not read.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.names, self.settings = source, source.names, source.settings
        self.identities = [source.identity(index) for index in range(len(source))]

    def __len__(self) -> int:
        return len(self.source)

    def size(self, index: int) -> tuple[int, int]:
        return self.source.size(index)

    def identity(self, index: int) -> str:
        return self.identities[index]

    def read(self, index: int) -> tuple[Array, Array]:
        """The sample.

        Raises:
            UserError: it has changed, or is gone.
        """
        try:
            sample = self.source.read(index)
        except UserError as error:
            self._compare(index, f" ({error})")
            raise
        self._compare(index)
        return sample

    def known(self, index: int) -> SampleStats | None:
        return self.source.known(index)

    def _compare(self, index: int, more: str = "") -> None:
        if self.source.identity(index) != self.identities[index]:
            raise UserError(
                f"{self.names[index]}: its files have changed since they were checked{more}: start again, so that they are checked as they are now"
            ) from None
