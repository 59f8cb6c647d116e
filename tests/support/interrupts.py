"""A run of pytest that is ended by a signal gets the ends of its fixtures, as with Ctrl-C; what it starts has the signals of
a program that was started by hand."""

import signal


def interrupt(number, frame):
    # Once is enough: what is being cleaned up now must not be interrupted in its turn.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def pytest_configure(config):
    # A shell starts its background jobs with SIGINT ignored, and what they start ignores it as well.
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
