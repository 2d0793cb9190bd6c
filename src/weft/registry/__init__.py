"""Who is running: instances under leases, a live picture of them, and discovery."""
