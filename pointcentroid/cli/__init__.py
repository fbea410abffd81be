"""The command line: one file a command, each one thin: parse, call, print."""
