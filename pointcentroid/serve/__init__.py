"""A page where files are dropped, and an API that classifies them: `pointcentroid serve`."""
