"""Carrying out a removal plan: files to quarantine and back. Nothing is ever deleted."""

from indexers.quarantine.apply import apply
from indexers.quarantine.plan import QuarantineReport, check_place, plan_schema, write_plan
from indexers.quarantine.undo import undo

__all__ = ["QuarantineReport", "apply", "check_place", "plan_schema", "undo", "write_plan"]
