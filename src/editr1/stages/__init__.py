"""One file an arrow of the loop: each has a Config and `run(config, run_dir)`. Stages never import stages."""
