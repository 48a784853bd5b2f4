"""`lowbit` and `python -m lowbit`: from the first import on an interrupt ends the process as `lowbit.ending` says."""

from lowbit.ending import ending_quietly


def main() -> None:
    """Run the command line."""
    with ending_quietly():
        from lowbit.cli import main as run

        run()


if __name__ == "__main__":
    main()
