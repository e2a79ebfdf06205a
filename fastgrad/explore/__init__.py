"""A page in the browser on which the gradient is looked at while a slider moves."""
