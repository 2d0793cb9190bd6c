"""The certificate authority: a root, an issuing intermediate, and how each makes way for the next."""
