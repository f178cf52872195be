"""What a person or a program may ask for. The command line, the magics and the server are thin faces over this."""
