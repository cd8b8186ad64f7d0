"""A collection, or a part of it, in the forms that other programs read."""

from retrieval.query.export.exporting import FORMS, Form, export
from retrieval.query.export.image_folder import Link
from retrieval.query.export.report import ExportReport

__all__ = ["FORMS", "ExportReport", "Form", "Link", "export"]
