"""The command line of clusterofone: `clusterofone --help`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from cluster.commands.program import run

    raise SystemExit(run())


if __name__ == "__main__":
    main()
