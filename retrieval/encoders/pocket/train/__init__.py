"""How the pocket heads and text tower are trained: ``python -m retrieval.encoders.pocket.train``.

Needs the ``train`` extra and WordNet's files; nothing here is imported at run time.
"""
