"""Every error this project raises on purpose, in one tree.

    RetrievalError
    ├── ImageError            a picture that cannot or must not be decoded
    ├── SourceError           a folder, CSV or other source that cannot be read
    ├── PlanError             a removal plan that cannot be written, applied or undone
    ├── ExportError           a place that an export cannot be written to
    ├── EncoderError          an encoder that fails
    │   ├── UnknownEncoder    no such name in the catalogue
    │   ├── EncoderUnavailable  its weights or packages are not here
    │   └── ModalityError     text given to an encoder without a text side
    ├── CollectionError       a collection that cannot be used as asked
    │   ├── CollectionNotFound
    │   ├── UnknownSpace
    │   ├── VersionGone       another process purged what was being read
    │   ├── SpaceMismatch     the space was made by another encoder identity
    │   └── SchemaError       written by a newer version, or damaged
    ├── FilterError           a filter expression that does not parse or fit the schema
    ├── VectorIndexError      an index that cannot be built or used
    │   └── DamagedIndex      its files are not as they were written
    ├── QueryError            a query without an answer: empty, wrong dimension, unknown id
    ├── SettingsError         an environment variable that makes no sense
    └── InstallError          a missing or contradicting package

Messages say what is wrong and, where there is one, name the fix.
"""

from __future__ import annotations


class RetrievalError(Exception):
    """Base of all errors raised by this project on purpose."""


class ImageError(RetrievalError):
    """A picture that cannot or must not be decoded.

    Attributes:
        kind: short stable word for the reason: ``empty``, ``not-an-image``, ``unsupported``,
            ``too-large``, ``truncated``, ``corrupt``.
    """

    def __init__(self, kind: str, message: str) -> None:
        """Keep the stable ``kind`` beside the sentence for people."""
        super().__init__(message)
        self.kind = kind


class SourceError(RetrievalError):
    """A folder, CSV or other source that cannot be read."""


class PlanError(RetrievalError):
    """A removal plan that cannot be written, applied or undone."""


class ExportError(RetrievalError):
    """A place that an export cannot be written to."""


class EncoderError(RetrievalError):
    """An encoder that fails."""


class UnknownEncoder(EncoderError):
    """No encoder of that name is in the catalogue."""


class EncoderUnavailable(EncoderError):
    """The encoder is known, but its weights or packages are not here."""


class ModalityError(EncoderError):
    """Text was given to an encoder that has no text side."""


class CollectionError(RetrievalError):
    """A collection that cannot be used as asked."""


class CollectionNotFound(CollectionError):
    """There is no collection at that path or URI."""


class UnknownSpace(CollectionError):
    """The collection has no space of that name."""


class VersionGone(CollectionError):
    """The version that was being read cannot be read any more, as after another process's purge."""


class SpaceMismatch(CollectionError):
    """The space was made by another encoder identity than the one at hand."""


class SchemaError(CollectionError):
    """The collection was written by a newer version of this software, or is damaged."""


class FilterError(RetrievalError):
    """A filter expression that does not parse or does not fit the schema."""


class VectorIndexError(RetrievalError):
    """An index of vectors that cannot be built or used."""


class DamagedIndex(VectorIndexError):
    """The files of an index are provably not as they were written; only then it is thrown away."""


class QueryError(RetrievalError):
    """A query that has no answer: empty, of the wrong dimension, or about an unknown image."""


class SettingsError(RetrievalError):
    """An environment variable whose value makes no sense."""


class InstallError(RetrievalError):
    """A missing package, or packages that contradict each other."""
