"""One script per DVC stage; none imports another."""
