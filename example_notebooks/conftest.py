"""What running an example leaves beside it is no example."""  # noqa: INP001 - a folder of notebooks is no package

collect_ignore = ["runs"]
