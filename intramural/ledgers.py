"""The departments' budget ledgers of a workspace: checked first, then read.

A ledger shows by itself that an entry was changed. That a whole ledger was removed, or put back to
an earlier copy, shows only elsewhere: in the receipts that the releases carry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from intramural.workspace import Workspace
from policies.model import Budget, Policy
from privacy.errors import PrivacyError, TamperedStore
from privacy.ledger.history import LedgerHistory, Spend, spent_report
from privacy.ledger.ledger import read_ledger, verify_ledger
from privacy.receipts import Receipt
from privacy.release import VerifiedRelease
from privacy.signing import VerifyKey
from privacy.store.reading import State, store_exists

_NOTHING = LedgerHistory(())


@dataclass(frozen=True)
class LedgerCheck:
    """What is known about one department's ledger.

    Attributes:
        department: whose.
        state: "absent" (never trained) or as :class:`privacy.ledger.ledger.LedgerReport` says.
        entries: how many entries it holds.
        head: digest of the last one, hexadecimal.
        faults: what is wrong, in words; empty when the ledger verifies.
        history: its entries; none unless it verifies.
    """

    department: str
    state: State | Literal["absent"]
    entries: int
    head: str
    faults: tuple[str, ...]
    history: LedgerHistory

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def check_ledger(
    workspace: Workspace, department: str, releases: Iterable[VerifiedRelease] = ()
) -> LedgerCheck:
    """Verify a department's ledger, also against its receipts in the releases; changes nothing."""
    paths = workspace.node(department)
    if not store_exists(paths.ledger):
        faults = tuple(_unpaid(department, _NOTHING, releases))
        return LedgerCheck(department, "absent", 0, "0" * 64, faults, _NOTHING)
    try:
        key = VerifyKey.load(paths.public_key)
        report = verify_ledger(paths.ledger, key)
        history = read_ledger(paths.ledger, key) if report.ok else _NOTHING
    except PrivacyError as error:
        return LedgerCheck(department, "unsealed", 0, "0" * 64, (str(error),), _NOTHING)
    own = {entry.department for entry in history.entries}
    faults = report.faults
    if own - {department}:
        others = ", ".join(sorted(own - {department}))
        faults += (f"{paths.ledger.name} holds entries of {others}",)
    elif report.ok:
        faults += tuple(_unpaid(department, history, releases))
    return LedgerCheck(
        department,
        report.state,
        report.entries,
        report.head,
        faults,
        _NOTHING if faults else history,
    )


def check_ledgers(
    workspace: Workspace, policy: Policy, releases: Iterable[VerifiedRelease] = ()
) -> tuple[LedgerCheck, ...]:
    """One check for each department of the policy or the workspace, by name."""
    known = tuple(releases)
    names = sorted({*policy.departments, *workspace.departments()})
    return tuple(check_ledger(workspace, name, known) for name in names)


def spends(checks: Iterable[LedgerCheck], policy: Policy) -> tuple[Spend, ...]:
    """What each department has spent, from ledgers that verify; one that does not is left out."""
    report: list[Spend] = []
    for check in checks:
        if check.ok:
            report += spent_report(check.history, _budget(policy, check.department))
    return tuple(report)


def read_spends(
    workspace: Workspace, policy: Policy, releases: Iterable[VerifiedRelease] = ()
) -> tuple[Spend, ...]:
    """What every department has spent, newest state.

    Raises:
        TamperedStore: a ledger does not verify; names the department and what is wrong.
    """
    checks = check_ledgers(workspace, policy, releases)
    wrong = [f"{check.department}: {fault}" for check in checks for fault in check.faults]
    if wrong:
        raise TamperedStore("; ".join(wrong))
    return spends(checks, policy)


def _budget(policy: Policy, department: str) -> Mapping[str, Budget]:
    if department not in policy.departments:
        return {}
    return {department: policy.budget_of(department)}


def _unpaid(
    department: str, history: LedgerHistory, releases: Iterable[VerifiedRelease]
) -> Iterable[str]:
    """Rounds that releases carry a receipt for and the ledger no reservation that counts."""
    paid = {
        (entry.block, entry.run_id, entry.round, entry.event)
        for entry in history.charged(department)
    }
    for release in releases:
        missing = [
            r for r in release.receipts if r.department == department and _key(r) not in paid
        ]
        if missing:
            rounds = ", ".join(str(receipt.round) for receipt in missing)
            yield (
                f"release {release.id} carries receipts for round {rounds} of {missing[0].run_id}, "
                "which this ledger never charged: it was removed or put back to an earlier copy"
            )


def _key(receipt: Receipt) -> tuple[str, str, int, object]:
    return receipt.block, receipt.run_id, receipt.round, receipt.event
