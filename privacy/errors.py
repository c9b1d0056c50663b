"""Everything that the proofs in ``privacy`` raise on purpose.

::

    PrivacyError
    ├── CanonicalError            a value has no canonical JSON form
    ├── KeyUnusable               a key file is missing, malformed or readable by others
    ├── SignatureInvalid          a signature does not belong to these bytes and this key
    ├── EventInvalid              a mechanism event that no accountant can price
    ├── AccountingDisagrees       two accounts of one history contradict each other
    ├── ReceiptInvalid            a receipt is malformed or does not verify
    ├── ExchangeInvalid           a message between hub and node is malformed
    ├── ReleaseInvalid            a release is incomplete, extended or changed
    ├── PersonalInvalid           a department's own adapter is changed, or fits another release
    ├── StoreError                a store's database cannot be used
    │   ├── StoreBusy             another process held it for too long
    │   ├── StoreUnavailable      its database server cannot be reached
    │   └── TamperedStore         its content is not what was sealed, signed or chained
    ├── EmpiricalError            see privacy.empirical.errors
    ├── LedgerError               a reservation, commit or void that the ledger refuses
    │   └── BudgetExceeded        its cost does not fit into the department's budget
    └── AuditError                the audit log refuses
        ├── AuditEntryInvalid     an entry holds something that a log must not hold
        └── AuditUnavailable      the log cannot promise durability any more
"""

from decimal import Decimal


class PrivacyError(Exception):
    """Root of the tree; its text is written for the person who has to act on it."""


class CanonicalError(PrivacyError):
    """A value has no canonical JSON form."""


class KeyUnusable(PrivacyError):
    """A key file is missing, malformed or readable by others."""


class SignatureInvalid(PrivacyError):
    """A signature does not belong to these bytes and this key."""


class EventInvalid(PrivacyError):
    """A mechanism event that no accountant can price."""


class AccountingDisagrees(PrivacyError):
    """Two accounts of one history contradict each other, so that neither is an answer."""


class ReceiptInvalid(PrivacyError):
    """A receipt is malformed or does not verify."""


class ExchangeInvalid(PrivacyError):
    """A message between hub and node is malformed."""


class ReleaseInvalid(PrivacyError):
    """A release is incomplete, extended or changed."""


class PersonalInvalid(PrivacyError):
    """A department's own adapter is changed, of somebody else, or fits another release."""


class StoreError(PrivacyError):
    """A store's database cannot be used."""


class StoreBusy(StoreError):
    """Another process held the store for longer than we wait."""


class StoreUnavailable(StoreError):
    """The store's database server cannot be reached, or broke off; a write may have been made."""


class TamperedStore(StoreError):
    """The store's content is not what was sealed, signed or chained."""


class LedgerError(PrivacyError):
    """A reservation, commit or void that the ledger refuses."""


class BudgetExceeded(LedgerError):
    """A reservation does not fit into the department's budget.

    Attributes:
        department: whose budget.
        epsilon: what all that was spent on the data block would cost with the reservation.
        budget: the bound that it would pass.
    """

    def __init__(self, department: str, epsilon: float, budget: Decimal) -> None:
        # Four digits, or all of them where four would hide that the bound is passed.
        told = f"{epsilon:.4g}" if float(f"{epsilon:.4g}") > budget else repr(epsilon)
        super().__init__(
            f"epsilon={told} would exceed the budget of {budget} for department {department!r}"
        )
        self.department = department
        self.epsilon = epsilon
        self.budget = budget


class AuditError(PrivacyError):
    """The audit log refuses."""


class AuditEntryInvalid(AuditError):
    """An entry holds something that a log must not hold."""


class AuditUnavailable(AuditError):
    """The log cannot promise durability any more, so it accepts nothing."""
