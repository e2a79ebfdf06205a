"""A hostile check of the whole program: what it is given, where it writes, and when it is stopped.

`core` runs a command and judges its outcome by rules that hold for every command; each other file is a topic, a list of
attacks. An attack is a function of an `Attempt`, from whose random numbers it makes its own input.
"""
