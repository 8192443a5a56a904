"""Shared by all commands: flags, help, one-line errors, signals and required inputs."""

HELP = ("--help", "-help", "--helpshort", "--helpfull", "-h", "-?")  # handled before any other import
