"""What a folder's files come to, found out without a server: for the commands and the console alike.

Law: a folder is read and checked exactly as the server does it; no port is taken, no state is made, and nothing of what
is found is in force. Who shows it is above.
"""
