"""Pictures of centroids: an open3d window, a self-contained page, images; all of the same panels."""
