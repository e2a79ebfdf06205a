"""Jobs: check the arguments, call the kernels, wrap the results. One file a job."""
