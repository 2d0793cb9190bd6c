"""The crew's checks, one tool each: a file in, findings on one scale of severity out."""
