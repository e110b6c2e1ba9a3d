"""The administration API: what the owner of the folder may ask and do, over a Unix socket in a private folder.

Law: whoever reaches the socket is the owner, because nobody else can enter its folder; every change that is made here
is on record before it takes effect. `service` has a method for each call, and beside it is a module for each thing
that is asked about. Who asks is elsewhere (policyd.admin_client).
"""
