"""Getting a checkpoint folder from the model hub, or saying within seconds why not."""

from retrieval.encoders.hub.choice import Kind
from retrieval.encoders.hub.fetching import fetch, resolved_revision

__all__ = ["Kind", "fetch", "resolved_revision"]
