"""`weft kubernetes controller`: keeps a cluster and a mesh the same, by custom resources and their like."""
