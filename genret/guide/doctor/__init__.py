"""`genret doctor`: what is installed, what lies in the home folder, what is broken and what helps."""
