from intramural.cli.parser import CommandGroup

app = CommandGroup("x")
