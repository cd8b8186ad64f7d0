"""`python -m app` is `retrieval`."""

from app.main import main

main()
