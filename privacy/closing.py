"""What is closed at the end of its ``with`` block."""

from typing import Self


class Closing:
    """A context manager by its own :meth:`close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is held."""
        raise NotImplementedError
