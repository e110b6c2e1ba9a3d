"""The console: the mesh in a browser. A process of its own, which shows what the commands tell, and changes nothing.

Law: it decides nothing and keeps nothing. Whatever comes from the mesh is hostile text: it becomes text on a page and
never markup. Who has no session sees nothing; a page asks no other origin for anything.
"""
