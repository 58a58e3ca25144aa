"""The task runner: ``nox -l`` lists, ``nox --no-venv -s quick`` runs what a change needs."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "quick"]
nox.options.error_on_missing_interpreters = False


def _install(session: nox.Session) -> None:
    """Into nox's own environment; with --no-venv everything is there already."""
    if session.virtualenv.is_sandboxed:
        session.install("-e", ".", "--group", "dev")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and layers."""
    _install(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def quick(session: nox.Session) -> None:
    """Every test that needs no engine and no minutes."""
    _install(session)
    session.run(
        "pytest", "-m", "not engine and not slow and not gpu and not upstream", *session.posargs
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Every test but those that need a card or an upstream checkout, with coverage."""
    _install(session)
    session.run(
        "pytest",
        "-m",
        "not gpu and not upstream",
        "--cov",
        "--cov-report=term:skip-covered",
        "--durations=12",
        "-pno:cacheprovider",  # it cannot write on a full disk, and fixtures are then not ended
        *session.posargs,
    )
