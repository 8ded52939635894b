"""`srcli benchmark`: start-up, speed, memory and quality of every engine that runs on this machine."""
