"""The notebook's face: magics, the live view under a cell, and notebooks run as flows.

`%load_ext prefect_nb` registers the magics.
"""
