"""How the HTTP services of the mesh answer what goes wrong: RFC 9457 problem details."""
