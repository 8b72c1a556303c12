"""`python -m studio` is the command `studio`."""

import signal


def main() -> int:
    """Run the command line and return the exit code; Ctrl-C during its imports is answered once they are done."""
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    from studio.cli.main import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
