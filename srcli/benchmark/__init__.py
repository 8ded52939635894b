"""`srcli benchmark`: start-up, speed, memory and quality of every engine that runs on this machine.

The scripts in `benchmarks/` use the same modules: `subjects` says what is measured, `rounds` how (in turns,
in processes of their own), `speed` and `quality` measure, `report` and `page` show, `run` does all of it.
"""
