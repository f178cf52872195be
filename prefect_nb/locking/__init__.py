"""Lock managers, for cache policies and transactions with the isolation level SERIALIZABLE.

    task(cache_policy=INPUTS.configure(isolation_level="SERIALIZABLE", lock_manager=MemoryLockManager()))

`memory.MemoryLockManager` locks between the threads of one process, `filesystem.FileSystemLockManager` between the
processes that share a directory. `protocol.LockManager` says what one of your own has to do.
"""
