"""Where images come from."""

from indexers.sources.folder import FolderSource, FoundFile, Unfindable

__all__ = ["FolderSource", "FoundFile", "Unfindable"]
