"""Blocks: configuration that is saved by type and name, its secrets encrypted.

from prefect_nb.blocks.system import Secret

Secret(value="...").save("api-token")
Secret.load("api-token").get()
"""
