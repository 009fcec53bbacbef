"""Errors that end a command, each with the exit status of sysexits.h and a hint for the reader."""

from __future__ import annotations

EX_USAGE = 64
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_NOPERM = 77
EX_CONFIG = 78


class OomwatchdError(Exception):
    """What is wrong, where, and how to fix it; the command line prints it as one line.

    ``exit_status`` is the process's exit status (sysexits.h).
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(OomwatchdError):
    """Wrong arguments."""

    exit_status = EX_USAGE


class NoInputError(OomwatchdError):
    """An input file is absent or unreadable."""

    exit_status = EX_NOINPUT


class UnavailableError(OomwatchdError):
    """A device, file system or service that is needed is not there."""

    exit_status = EX_UNAVAILABLE


class PermissionDeniedError(OomwatchdError):
    """The system refuses what is needed."""

    exit_status = EX_NOPERM


class ConfigError(OomwatchdError):
    """The configuration is wrong."""

    exit_status = EX_CONFIG


class DeliveryError(OomwatchdError):
    """A receiver did not take an event.

    ``refused``: it will not take this one, ever; else it may later, not before ``retry_after_seconds`` if
    the receiver named a pause.
    """

    exit_status = EX_UNAVAILABLE

    def __init__(
        self, message: str, *, refused: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.refused = refused
        self.retry_after_seconds = retry_after_seconds
