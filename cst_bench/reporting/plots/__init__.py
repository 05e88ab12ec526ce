"""The plots of a report of several runs, one a module: each makes a figure and says in words what it shows."""
