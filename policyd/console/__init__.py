"""The console: the mesh in a browser. A process of its own, which shows what the commands tell.

Law: it decides nothing, keeps nothing and writes nothing; policies that are edited in it the server takes, or does not.
Whatever comes from the mesh is hostile text: it becomes text on a page and never markup. Who has no session sees
nothing; a page asks no other origin for anything.
"""
