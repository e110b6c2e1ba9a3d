"""`python -m policyd.console`: the process that `policyd up` and `policyd serve --console` start."""

from policyd.console.main import main

main()
