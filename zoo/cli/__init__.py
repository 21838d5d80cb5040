"""The command line. `main` is the front door: it imports neither torch nor lightning until a verb needs them."""
