"""How fast the engine is, next to a bare echo on the same server stack and machine. See README.md."""
