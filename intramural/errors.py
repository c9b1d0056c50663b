"""What goes wrong where the rooms are wired together.

::

    IntramuralError
    ├── WorkspaceError     a workspace lacks what a command or the service needs
    │   ├── WorkspaceInUse the folder belongs to something else
    │   └── NoCanaries     a run cannot be audited (in intramural.auditing)
    ├── ClaimRefuted       canaries contradict a run's receipts (in intramural.auditing)
    └── CommandRefused     a command will not do what was asked, and says why

The rooms' own errors pass through as they are. Exit codes are the command line's business
(``intramural.cli.failures``).
"""


class IntramuralError(Exception):
    """Root of the tree; its text is written for the person at the terminal."""


class WorkspaceError(IntramuralError):
    """A workspace lacks what a command or the service needs."""


class WorkspaceInUse(WorkspaceError):
    """The folder belongs to something else and is left alone."""


class CommandRefused(IntramuralError):
    """A command will not do what was asked; nothing was changed."""
