"""Tables that refuse changes by themselves: triggers in the database, whoever speaks to it.

They stop mistakes and whoever may only use the tables. Who owns the tables can drop them; what then
changes is found by chain, tree and signatures.
"""

from alembic import op

_FUNCTION = "refuse_change"


def append_only(table: str, store: str) -> None:
    """Let a table take new rows only; to be called in a migration. ``store`` is said in the error."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the % is append-only', TG_ARGV[0]; END $$"
        )
        for action, each in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
            op.execute(
                f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"FOR EACH {each} EXECUTE FUNCTION {_FUNCTION}('{store}')"
            )
        return
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, 'the {store} is append-only'); END"
        )
