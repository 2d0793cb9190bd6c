"""Who a process is: X509-SVIDs, trust bundles, and TLS with them."""
