"""The command line: the ``polypod`` command and its subcommands."""
