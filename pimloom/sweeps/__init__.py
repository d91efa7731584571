"""Many runs at once: what to run, a store of what was run, the processes that run it, and the table of all."""
