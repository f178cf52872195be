"""A notebook as a body: reading it, its kernel, the loop over its cells, and writing what came of it."""
