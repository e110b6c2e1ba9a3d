"""The command line: one file a command group, thin. Each command imports what it needs when it runs."""
