"""The one error type for mistakes that a user can mend."""


class InputError(ValueError):
    """Something given from outside is wrong: a file, a folder, an option, a label.

    The message names what was given, what is wrong with it and how to mend it, in one or two
    lines. The command line prints it without a traceback and exits with code 2.
    """
