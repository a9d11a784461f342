"""Ctrl-C and SIGTERM in a training: at once where nothing is lost by it, after the step where a step is on its way."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAID = "stopped; the same command begins again, or goes on from the checkpoint that it finds"


class Stopped(KeyboardInterrupt):
    """A training that a signal has stopped; the message says where it stands and how it goes on.

    Attributes:
        number: the signal; a process that it ends has 128 and this as its exit code.
    """

    def __init__(self, message: str = SAID, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class Stops:
    """What a signal does: raises `Stopped`, or, inside `later()`, is kept for the loop to ask for."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.waiting = False

    def __call__(self, number: int, frame: Any = None) -> None:
        """The handler of a signal; a second one is not kept waiting."""
        again, self.number = self.number is not None, number
        if again or not self.waiting:
            raise Stopped(number=number)

    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @contextlib.contextmanager
    def later(self) -> Iterator[Callable[[], bool]]:
        """Inside, the first signal is kept, and what is yielded says whether it has come; `Stopped` at the end."""
        self.waiting = True
        try:
            yield self.asked
        finally:
            self.waiting = False
        if self.number is not None:
            raise Stopped(number=self.number)


@contextlib.contextmanager
def stopping() -> Iterator[Stops]:
    """Inside, Ctrl-C and SIGTERM are answered by what is yielded; afterwards as before.

    Signals belong to the main thread; in another they are left alone.

    Example:
        >>> with stopping():
        ...     try:
        ...         signal.raise_signal(signal.SIGTERM)
        ...     except Stopped as stop:
        ...         print(stop.number)
        15
    """
    stops, before = Stops(), {}
    with contextlib.suppress(ValueError):
        for one in SIGNALS:
            before[one] = signal.signal(one, stops)
    try:
        yield stops
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
