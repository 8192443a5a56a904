"""What all commands share: flags, help, one-line errors, signals and required inputs."""

HELP = ("--help", "-help", "--helpshort", "--helpfull", "-h", "-?")  # known before anything is imported
