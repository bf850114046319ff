"""Programs that lab hosts have on their PATH; run by path with a bare interpreter, so they import nothing else."""
