"""The notebook face: magics, the live view under a cell, and its static picture."""
