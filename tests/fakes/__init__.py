"""One fake a port, a file each: written once, used by every test that needs the port."""
